//! The configuration for `/api/v1/status/config`, without secrets.

use serde_json::Value;

use super::Config;

/// Shown instead of a secret.
const HIDDEN: &str = "********";

/// Parts of the names of secrets.
const SECRET_WORDS: [&str; 6] =
    ["secret", "password", "token", "account_key", "customer_key", "service_account"];

/// Parts of the names of addresses, which may be URLs without a scheme.
const ADDRESS_WORDS: [&str; 6] = ["url", "endpoint", "addr", "proxy", "join", "origins"];

/// The configuration of this process in YAML, without its secrets: all values, the defaults, and the differences.
#[derive(Clone, Default)]
pub(crate) struct ConfigPages {
    pub(crate) all: String,
    pub(crate) defaults: String,
    pub(crate) changed: String,
}

impl ConfigPages {
    /// # Errors
    /// The configuration cannot be written as YAML.
    pub(crate) fn of(config: &Config) -> Result<Self, Box<dyn std::error::Error>> {
        let tree = |config: &Config| serde_json::to_value(config).map(hide_secrets);
        let (all, defaults) = (tree(config)?, tree(&Config::default())?);
        let changed = changed(&all, &defaults).unwrap_or_else(|| Value::Object(Default::default()));
        let text = serde_yaml::to_string::<Value>;
        Ok(Self { all: text(&all)?, defaults: text(&defaults)?, changed: text(&changed)? })
    }
}

fn hide_secrets(tree: Value) -> Value {
    hide_named("", tree)
}

/// `name` is the field of this value, or the field of the list that contains it.
fn hide_named(name: &str, value: Value) -> Value {
    let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match value {
        Value::String(text) if text.is_empty() => Value::String(text),
        Value::String(_) if is(&SECRET_WORDS) => Value::String(HIDDEN.to_owned()),
        Value::String(text) if is(&ADDRESS_WORDS) && !text.contains("://") => {
            Value::String(storage::hide_address_secrets(&text))
        }
        Value::String(text) => Value::String(storage::hide_url_secrets(&text)),
        Value::Array(values) => values.into_iter().map(|value| hide_named(name, value)).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let value = hide_named(&name, value);
                (name, value)
            });
            Value::Object(fields.collect())
        }
        other => other,
    }
}

/// The part of `tree` that differs from `defaults`; `None` if nothing differs.
fn changed(tree: &Value, defaults: &Value) -> Option<Value> {
    match (tree, defaults) {
        (Value::Object(fields), Value::Object(known)) => {
            let differs = |(name, value): (&String, &Value)| {
                let value = changed(value, known.get(name).unwrap_or(&Value::Null))?;
                Some((name.clone(), value))
            };
            let fields: serde_json::Map<_, _> = fields.iter().filter_map(differs).collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        (value, default) => (value != default).then(|| value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shown_and_secrets_are_not() {
        let mut config = Config::default();
        let shown = ConfigPages::of(&config).unwrap();
        assert_eq!(shown.changed, "{}\n");
        assert_eq!(shown.all, shown.defaults);

        config.server.http_listen_port = 1;
        config.storage.s3.secret_access_key = "hush".into();
        let shown = ConfigPages::of(&config).unwrap();
        assert_eq!(
            shown.changed,
            "server:\n  http_listen_port: 1\nstorage:\n  s3:\n    secret_access_key: \"********\"\n"
        );
        assert!(!shown.all.contains("hush"));
        assert!(shown.defaults.contains("http_listen_port: 4040"));
    }

    #[test]
    fn credentials_and_queries_of_urls_are_hidden_in_every_value() {
        fn fill(value: &mut Value) {
            match value {
                Value::String(text) => *text = "http://user:hush@host:1/path?sig=hush".into(),
                Value::Object(fields) => fields.values_mut().for_each(fill),
                _ => {}
            }
        }
        let mut tree = serde_json::to_value(Config::default()).unwrap();
        fill(&mut tree);
        let shown = hide_secrets(tree).to_string();
        assert!(!shown.contains("hush") && shown.contains("http://********@host:1/path?********"), "{shown}");

        let mut config = Config::default();
        config.storage.s3.endpoint = "user:hush@minio:9000".into();
        config.storage.azure.endpoint = "account.blob.example/c?sig=hush".into();
        config.memberlist.join_members = "a:7946,b:7946".into();
        let shown = ConfigPages::of(&config).unwrap().changed;
        assert!(
            !shown.contains("hush") && shown.contains("minio:9000") && shown.contains("a:7946,b:7946"),
            "{shown}"
        );
    }
}
