//! Paths as a build prints them, as paths of the source tree or the build folder.

/// Where a build ran. All folders are absolute, without `/` at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The top of the source tree.
    pub source: String,
    /// The build folder (`O=`); may be the same.
    pub output: String,
}

/// A path, by where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Below the top of the source tree.
    Source(String),
    /// Below the build folder.
    Output(String),
    /// Anywhere else, absolute: a header of the compiler.
    Elsewhere(String),
}

impl Place {
    /// The path below its root; absolute where it is elsewhere.
    pub fn into_path(self) -> String {
        match self {
            Self::Source(path) | Self::Output(path) | Self::Elsewhere(path) => path,
        }
    }
}

impl Roots {
    /// Where `path`, as named by a process in folder `cwd`, leads.
    pub fn place(&self, cwd: &str, path: &str) -> Place {
        let joined = if path.starts_with('/') { path.to_owned() } else { format!("{cwd}/{path}") };
        let clean = clean(&joined);
        let below = |root: &str| clean.strip_prefix(root)?.strip_prefix('/').map(str::to_owned);
        // The build folder first: it may lie in the source tree.
        if self.output != self.source
            && let Some(path) = below(&self.output)
        {
            return Place::Output(path);
        }
        match below(&self.source) {
            Some(path) => Place::Source(path),
            None => Place::Elsewhere(clean),
        }
    }
}

/// Takes `.`, `..` and double slashes out of an absolute path, by the text alone.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let roots = Roots { source: "/b/src".to_owned(), output: "/b/out".to_owned() };
        let source = |path: &str| Place::Source(path.to_owned());
        let output = |path: &str| Place::Output(path.to_owned());
        for (cwd, path, want) in [
            ("/b/out", "/b/src/kernel/fork.c", source("kernel/fork.c")),
            ("/b/out", "../src/./kernel//fork.c", source("kernel/fork.c")),
            ("/b/out", "include/generated/autoconf.h", output("include/generated/autoconf.h")),
            ("/b/src/tools/objtool", "../lib/x.c", source("tools/lib/x.c")),
            ("/b/out", "/usr/include/stdio.h", Place::Elsewhere("/usr/include/stdio.h".to_owned())),
            ("/b/out", "../../../../etc/passwd", Place::Elsewhere("/etc/passwd".to_owned())),
            ("/b/out", "/b/srcfoo/x", Place::Elsewhere("/b/srcfoo/x".to_owned())),
        ] {
            assert_eq!(roots.place(cwd, path), want, "{cwd} {path}");
        }
    }
}
