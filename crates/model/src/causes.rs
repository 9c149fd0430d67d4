//! An error and its causes as text.

use std::error::Error;

/// Text of `error` and of all its causes, outermost first, with `: ` between them.
///
/// A cause whose text already stands there is left out: many errors repeat the text of their source.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    append_causes(&mut text, error);
    text
}

/// Appends the causes of `error` to `text`, which describes `error` itself; as [`with_causes`].
pub fn append_causes(text: &mut String, error: &dyn Error) {
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    fn chain(texts: &[&'static str]) -> Layer {
        let source = texts[1..].first().map(|_| Box::new(chain(&texts[1..])));
        Layer { text: texts[0], source }
    }

    #[test]
    fn every_cause_is_named_once() {
        assert_eq!(with_causes(&chain(&["a"])), "a");
        assert_eq!(with_causes(&chain(&["push", "disk", "full"])), "push: disk: full");
        assert_eq!(with_causes(&chain(&["push: disk", "disk", "full"])), "push: disk: full");
    }
}
