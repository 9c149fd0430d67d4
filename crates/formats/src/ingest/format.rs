//! The format of a body of `/ingest`.

/// The format of a body of `/ingest`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The body is one pprof, gzipped or not.
    Pprof,
    /// The body is a form: see [`crate::multipart`].
    Multipart,
    /// The body is a JFR recording, or a form with one: see [`crate::jfr`].
    Jfr,
    /// [`crate::folded::decode_groups`]
    Groups,
    /// No name, or an unknown one: a pprof or a JFR recording if the content is one, else like [`Format::Groups`].
    Unnamed,
    /// [`crate::folded::decode_lines`]
    Lines,
    /// [`crate::trees::decode_tree`]
    Tree,
    /// [`crate::trees::decode_trie`]
    Trie,
}

/// A format that is known, but not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "format {0:?} is not accepted; accepted are a multipart form with a file \"profile\" (pprof), and format=pprof, jfr, groups, folded, lines, tree or trie"
)]
pub struct Unsupported(pub &'static str);

impl Format {
    /// Chosen by the `format` parameter and the content type, both as sent; empty if absent. The first match wins:
    /// several clients send a format together with a content type that contradicts it.
    ///
    /// # Errors
    /// [`Unsupported`]; anything unknown is [`Format::Unnamed`].
    pub fn of(format: &str, content_type: &str) -> Result<Self, Unsupported> {
        match (format, content_type) {
            ("trie", _) | (_, "binary/octet-stream+trie") => Ok(Self::Trie),
            ("tree", _) | (_, "binary/octet-stream+tree") => Ok(Self::Tree),
            ("lines", _) => Ok(Self::Lines),
            ("jfr", _) => Ok(Self::Jfr),
            ("pprof", _) => Ok(Self::Pprof),
            ("speedscope", _) => Err(Unsupported("speedscope")),
            (_, form) if form.contains("multipart/form-data") => Ok(Self::Multipart),
            ("groups" | "folded" | "collapsed", _) => Ok(Self::Groups),
            _ => Ok(Self::Unnamed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_wins() {
        let form = "multipart/form-data; boundary=x";
        let cases = [
            ("", "", Ok(Format::Unnamed)),
            ("", form, Ok(Format::Multipart)),
            ("collapsed", "", Ok(Format::Groups)),
            ("groups", form, Ok(Format::Multipart)),
            ("PPROF", "", Ok(Format::Unnamed)),
            ("folded", "application/octet-stream", Ok(Format::Groups)),
            ("pprof", form, Ok(Format::Pprof)),
            ("lines", form, Ok(Format::Lines)),
            ("jfr", form, Ok(Format::Jfr)),
            ("lines", "binary/octet-stream+trie", Ok(Format::Trie)),
            ("", "binary/octet-stream+tree", Ok(Format::Tree)),
            ("speedscope", "", Err(Unsupported("speedscope"))),
        ];
        for (format, content_type, expected) in cases {
            assert_eq!(Format::of(format, content_type), expected, "{format} {content_type}");
        }
    }
}
