//! Which states an audit looks at.

use crate::digest::{Digest, DigestBuilder};
use crate::id::Oid;

/// Whether the state with this tree is in a sample of `percent` of all states of a target.
///
/// It depends on content alone: the same series gives the same sample, and every further patch its own chance.
pub fn is_sampled(target: &Digest, tree: &Oid, percent: u8) -> bool {
    let builder = DigestBuilder::new("bombproof/audit-sample/v1").field(target.to_string().as_bytes());
    let text = builder.field(tree.as_str().as_bytes()).finish().to_string();
    let head = text.get(..8).and_then(|head| u32::from_str_radix(head, 16).ok()).unwrap_or(0);
    head % 100 < u32::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_its_size() {
        let tree = |number: u32| Oid::parse(&format!("{number:040x}")).unwrap();
        let count = |percent| (0..2000).filter(|n| is_sampled(&Digest::of(b"t"), &tree(*n), percent)).count();
        assert_eq!((count(0), count(100)), (0, 2000));
        assert!((150..250).contains(&count(10)), "{}", count(10));
        assert!(
            (0..2000)
                .all(|n| !is_sampled(&Digest::of(b"t"), &tree(n), 10) || is_sampled(&Digest::of(b"t"), &tree(n), 20))
        );
    }
}
