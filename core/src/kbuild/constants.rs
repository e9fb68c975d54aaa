//! Constants that the compiler computes for the build: `asm-offsets.s` and its like.
//!
//! Such a text is compiled for the lines with `->` alone, from which `sed` makes a header (`filechk_offsets` in
//! `scripts/Makefile.lib` of the kernel, `sed-offsets` beside it); the rest of it is code that nobody reads.

/// Names of the texts that are made for their constants; nothing but the header is made from them.
const TEXTS: &[&str] = &["asm-offsets.s", "bounds.s", "devicetable-offsets.s", "rq-offsets.s"];

/// Whether this output of a compile is such a text.
pub fn are_of(output: &str) -> bool {
    TEXTS.contains(&output.rsplit('/').next().unwrap_or(output))
}

/// Whether the same header is made from two versions of such a text; false where it is no such text.
pub fn are_equal(output: &str, one: &[u8], other: &[u8]) -> bool {
    are_of(output) && lines(one).eq(lines(other))
}

/// The lines that the header is made from: `->NAME VALUE COMMENT`, in newer kernels as a string for the assembler.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| line.starts_with(b".ascii") || line.starts_with(b"->"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_constants_count() {
        let text =
            b"# a.c:7: x\n\tmovl $1, %eax\n\t.ascii \"->TASK_FLAGS $44 offsetof(struct task_struct, flags)\"\n.ident\n";
        let moved = b"# a.c:9: x\n\t.ascii \"->TASK_FLAGS $44 offsetof(struct task_struct, flags)\"\n";
        let other = b"# a.c:7: x\n\t.ascii \"->TASK_FLAGS $48 offsetof(struct task_struct, flags)\"\n";
        let bare = b"\n->TASK_FLAGS $44 offsetof(struct task_struct, flags)\n";
        for (name, one, two, want) in [
            ("arch/x86/kernel/asm-offsets.s", &text[..], &moved[..], true),
            ("arch/x86/kernel/asm-offsets.s", text, other, false),
            ("kernel/bounds.s", text, moved, true),
            ("kernel/bounds.s", bare, bare, true),
            ("kernel/bounds.s", bare, b"", false),
            ("kernel/bounds.s", text, bare, false),
            ("kernel/bounds.s", text, b"", false),
            ("kernel/fork.s", text, moved, false),
            ("kernel/fork.o", text, text, false),
        ] {
            assert_eq!(are_equal(name, one, two), want, "{name}");
        }
    }
}
