//! The parameter `name` of `/ingest`.

use model::label_names::NAME;

/// The `name` parameter: `service{key=value,…}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppName {
    pub service: String,
    /// Keys are unique; in order of their first appearance. Values may be empty.
    pub labels: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppNameError {
    #[error("name: application name is empty")]
    NoService,
    #[error("name: application name {0:?} has characters other than letters, digits and _.-/")]
    Service(String),
    #[error("name: a label name is empty")]
    NoKey,
    #[error("name: label name {0:?} has characters other than letters, digits and _.")]
    Key(String),
}

impl AppName {
    /// Parses without quotes or escapes: a key ends at the first `=`, a value at the first `,` or `}`. An unfinished
    /// pair is dropped. A label `__name__` replaces the service.
    ///
    /// # Errors
    /// If the service or a key is empty or has a forbidden character.
    pub fn parse(text: &str) -> Result<Self, AppNameError> {
        let (service, mut rest) = text.split_once('{').unwrap_or((text, ""));
        let mut name = Self { service: service.trim().to_owned(), labels: Vec::new() };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
        if name.service.is_empty() {
            return Err(AppNameError::NoService);
        }
        if !name.service.chars().all(allowed) {
            return Err(AppNameError::Service(name.service));
        }
        while let Some(key_end) = rest.find(['=', '}']) {
            let (key, after) = rest.split_at(key_end);
            let Some(after) = after.strip_prefix('=') else {
                rest = &after[1..];
                continue;
            };
            let Some(value_end) = after.find([',', '}']) else {
                break;
            };
            name.set(key.trim(), after[..value_end].trim())?;
            rest = &after[value_end + 1..];
        }
        Ok(name)
    }

    /// The service up to its last dot, and the suffix after it; the suffix is `cpu` if there is no dot.
    pub fn split_column(&self) -> (&str, &str) {
        self.service.rsplit_once('.').unwrap_or((&self.service, "cpu"))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), AppNameError> {
        if key == NAME {
            self.service = value.to_owned();
            return Ok(());
        }
        if key.is_empty() {
            return Err(AppNameError::NoKey);
        }
        if !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            return Err(AppNameError::Key(key.to_owned()));
        }
        match self.labels.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value.to_owned(),
            None => self.labels.push((key.to_owned(), value.to_owned())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_without_quoting() {
        let cases: [(&str, &str, &[(&str, &str)]); 14] = [
            ("app", "app", &[]),
            (" my.app-1/x ", "my.app-1/x", &[]),
            ("app{}", "app", &[]),
            ("app{env=dev}", "app", &[("env", "dev")]),
            ("app{ a = 1 , b = 2 }", "app", &[("a", "1"), ("b", "2")]),
            ("app{a=\"x\"}", "app", &[("a", "\"x\"")]),
            ("app{a=b=c{d}", "app", &[("a", "b=c{d")]),
            ("app{a=1,b=2", "app", &[("a", "1")]),
            ("app{a=}", "app", &[("a", "")]),
            ("app{a=1,a=2}", "app", &[("a", "2")]),
            ("app{a=1,}", "app", &[("a", "1")]),
            ("app{a=1}rubbish", "app", &[("a", "1")]),
            ("app{__name__=other,a.b=1}", "other", &[("a.b", "1")]),
            ("app{lonely}", "app", &[]),
        ];
        for (text, service, labels) in cases {
            let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            let service = service.to_owned();
            assert_eq!(AppName::parse(text), Ok(AppName { service, labels }), "{text}");
        }
    }

    #[test]
    fn names_that_break_the_rules_are_refused() {
        let cases = [
            ("", AppNameError::NoService),
            (" {a=1}", AppNameError::NoService),
            ("a b", AppNameError::Service("a b".into())),
            ("ä", AppNameError::Service("ä".into())),
            ("app{=1}", AppNameError::NoKey),
            ("app{a-b=1}", AppNameError::Key("a-b".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(AppName::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_last_dot_divides_service_and_column() {
        let cases = [("app", ("app", "cpu")), ("my.app.wall", ("my.app", "wall")), ("app.", ("app", ""))];
        for (text, expected) in cases {
            let name = AppName::parse(text).unwrap();
            assert_eq!(name.split_column(), expected, "{text}");
        }
    }
}
