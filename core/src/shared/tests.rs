//! Shared collections against the plain ones.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Plain = BTreeMap<String, u8>;

/// Few keys, many entries: parts are split, emptied and met again.
fn plain() -> impl Strategy<Value = Plain> {
    prop::collection::btree_map("[a-c]{1,5}", 0_u8..3, 0..300)
}

fn shared(plain: &Plain) -> SharedMap<u8> {
    plain.into()
}

fn back(map: &SharedMap<u8>) -> Plain {
    map.iter().map(|(key, value)| (key.to_owned(), *value)).collect()
}

/// What differs, by the definition.
fn differ(before: &Plain, after: &Plain) -> Vec<(String, Option<u8>, Option<u8>)> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let both = keys.into_iter().map(|key| (key.clone(), before.get(key).copied(), after.get(key).copied()));
    both.filter(|(_, before, after)| before != after).collect()
}

fn found(before: &SharedMap<u8>, after: &SharedMap<u8>) -> Vec<(String, Option<u8>, Option<u8>)> {
    let found = before.differences(after);
    found.map(|it| (it.key.to_string(), it.before.copied(), it.after.copied())).collect()
}

proptest! {
    #[test]
    fn inserted_and_removed_like_a_plain_map(
        start in plain(),
        steps in prop::collection::vec(("[a-c]{1,5}", prop::option::of(0_u8..3)), 0..200),
    ) {
        let (mut map, mut want) = (shared(&start), start.clone());
        let kept = map.clone();
        for (key, value) in steps {
            match value {
                Some(value) => prop_assert_eq!(map.insert(key.as_str().into(), value), want.insert(key, value)),
                None => prop_assert_eq!(map.remove(&key), want.remove(&key)),
            }
            prop_assert_eq!(map.len(), want.len());
        }
        prop_assert_eq!(&back(&map), &want);
        for key in want.keys().chain(start.keys()) {
            prop_assert_eq!(map.get(key), want.get(key));
        }
        prop_assert_eq!(&back(&kept), &start, "a copy is not touched");
        prop_assert_eq!(found(&kept, &map), differ(&start, &want), "parts are skipped only where they are equal");
        prop_assert_eq!(kept == map, start == want);
    }

    #[test]
    fn differences_and_sharing_of_any_two(before in plain(), after in plain()) {
        let (one, mut other) = (shared(&before), shared(&after));
        prop_assert_eq!(found(&one, &other), differ(&before, &after));
        prop_assert_eq!(one == other, before == after);
        other.share_with(&one);
        prop_assert_eq!(back(&other), after);
    }

    #[test]
    fn the_text_form_is_that_of_a_plain_map(plain in plain()) {
        let text = serde_json::to_string(&plain).unwrap();
        prop_assert_eq!(&serde_json::to_string(&shared(&plain)).unwrap(), &text);
        prop_assert_eq!(back(&serde_json::from_str(&text).unwrap()), plain);
    }
}

#[test]
fn equal_values_become_one() {
    let long: Plain = (0..500).map(|n| (format!("{n:03}"), 1)).collect();
    let (one, mut other) = (shared(&long), shared(&long));
    assert!(one == other && !one.is_one_with(&other));
    other.share_with(&one);
    assert!(one.is_one_with(&other));
    let set: SharedSet = long.keys().map(String::as_str).collect();
    let mut same: SharedSet = set.iter().collect();
    same.share_with(&set);
    assert!(same.is_one_with(&set) && same.contains("499") && !same.insert("499".into()));
    let value = Shared::from(vec![1]);
    let mut equal = Shared::from(vec![1]);
    equal.share_with(&value);
    assert!(equal.is_one_with(&value));
    equal.push(2);
    assert_eq!((value.len(), equal.len()), (1, 2), "what is changed is copied first");
}

#[test]
fn text_out_of_order_is_read_too() {
    let map: SharedMap<u8> = serde_json::from_str(r#"{"b":1,"a":2,"b":3}"#).unwrap();
    assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"a":2,"b":3}"#);
    let set: SharedSet = serde_json::from_str(r#"["b","a","b"]"#).unwrap();
    assert_eq!(serde_json::to_string(&set).unwrap(), r#"["a","b"]"#);
}
