//! Reads the configuration: defaults, then the YAML file, then flags, in one tree.
//!
//! Unknown names are errors that suggest the nearest known name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Config, flags};

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("flag -{flag} is not known{}", nearest_words(.nearest, "-"))]
    UnknownFlag { flag: String, nearest: Option<String> },
    #[error("argument {0:?} is not a flag; flags look like -name=value")]
    NotAFlag(String),
    #[error("flag -{0} needs a value")]
    MissingValue(String),
    #[error("flag -{flag} cannot be {value:?}: {reason}")]
    BadValue { flag: String, value: String, reason: String },
    #[error("cannot read config file {path}: {reason}")]
    File { path: String, reason: String },
    #[error("config file {path}: field {field} is not known{}", nearest_words(.nearest, ""))]
    UnknownField { path: String, field: String, nearest: Option<String> },
    #[error("config: {0}")]
    Invalid(String),
}

impl LoadError {
    /// As Go's flag package exits: 2 for a command line that cannot be read, 1 for a bad configuration.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownFlag { .. } | Self::NotAFlag(_) | Self::MissingValue(_) => 2,
            _ => 1,
        }
    }
}

pub(crate) struct LoadedConfig {
    pub config: Config,
    /// Paths of all values in the file and the flags, equal to their defaults or not.
    pub set_paths: BTreeSet<String>,
    /// Flags that were accepted and ignored, in words.
    pub warnings: Vec<String>,
}

/// Reads the server's command line, the file that it names, and the environment variables of the file.
pub(crate) fn load(arguments: &[String]) -> Result<LoadedConfig, LoadError> {
    let mut tree = default_tree()?;
    let names = flag_names(&tree);
    let mut set_paths = BTreeSet::new();
    let mut warnings = Vec::new();
    let mut settings = Vec::new();
    let mut file = None;
    let mut expand = false;
    for (flag, value) in split_flags(arguments, &tree, &names)? {
        match flag.as_str() {
            "config.file" => file = Some(value),
            "config.expand-env" => expand = value == "true",
            _ if names.contains_key(&flag) => settings.push((flag, value)),
            _ => warnings.push(format!("flag -{flag} has no meaning here and is ignored")),
        }
    }
    if let Some(path) = file {
        let error = |reason: String| LoadError::File { path: path.clone(), reason };
        let mut text = std::fs::read_to_string(&path).map_err(|e| error(e.to_string()))?;
        if expand {
            #[allow(clippy::disallowed_methods, reason = "config.expand-env asks for the environment")]
            let environment = |name: &str| std::env::var(name).ok();
            text = expand_variables(&text, environment);
        }
        if !text.trim().is_empty() {
            let document: Value = serde_yaml::from_str(&text).map_err(|e| error(e.to_string()))?;
            set_paths.extend(leaves(&document, ""));
            merge(&mut tree, document, "", &path)?;
        }
    }
    let mut lists: BTreeMap<&str, String> = BTreeMap::new();
    for (flag, value) in &settings {
        let path = names[flag].as_str();
        set_paths.insert(path.to_owned());
        if !flags::LISTS.contains(&path) {
            set(&mut tree, path, flag, value)?;
            continue;
        }
        let list = lists.entry(path).or_default();
        list.push_str(if list.is_empty() { "" } else { "," });
        list.push_str(value);
        set(&mut tree, path, flag, list)?;
    }
    let config = serde_json::from_value(tree).map_err(|e| LoadError::Invalid(e.to_string()))?;
    Ok(LoadedConfig { config, set_paths, warnings })
}

pub(super) fn default_tree() -> Result<Value, LoadError> {
    serde_json::to_value(Config::default()).map_err(|e| LoadError::Invalid(e.to_string()))
}

/// Path of the value by flag.
fn flag_names(tree: &Value) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for path in leaves(tree, "") {
        for flag in flags::flags_of(&path) {
            names.insert(flag, path.clone());
        }
    }
    names
}

pub(super) fn leaves(tree: &Value, prefix: &str) -> Vec<String> {
    match tree {
        Value::Object(fields) if !fields.is_empty() => fields
            .iter()
            .flat_map(|(name, value)| {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                leaves(value, &path)
            })
            .collect(),
        _ => vec![prefix.to_owned()],
    }
}

/// `-name=value`, `--name value`, and `-name` alone for booleans.
fn split_flags(
    arguments: &[String],
    tree: &Value,
    names: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, LoadError> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(bare) = argument.strip_prefix('-') else {
            return Err(LoadError::NotAFlag(argument.clone()));
        };
        let bare = bare.strip_prefix('-').unwrap_or(bare);
        let (name, inline_value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (bare, None),
        };
        let path = names.get(name);
        let special = name == "config.file" || name == "config.expand-env";
        if path.is_none() && !special && !flags::is_ignored(name) {
            let nearest = nearest(name, names.keys().map(String::as_str));
            return Err(LoadError::UnknownFlag { flag: name.to_owned(), nearest });
        }
        let value = match inline_value {
            Some(value) => value,
            None if name == "config.expand-env" || path.is_some_and(|p| is_bool(tree, p)) => "true".into(),
            // It is not known whether an ignored flag takes a value: a next word that is not a flag is taken as one.
            None if path.is_none() && !special => {
                let next_is_value = rest.as_slice().first().is_some_and(|next| !next.starts_with('-'));
                if next_is_value { rest.next().cloned().unwrap_or_default() } else { String::new() }
            }
            None => rest.next().cloned().ok_or_else(|| LoadError::MissingValue(name.to_owned()))?,
        };
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

fn is_bool(tree: &Value, path: &str) -> bool {
    tree.pointer(&format!("/{}", path.replace('.', "/"))).is_some_and(Value::is_boolean)
}

fn set(tree: &mut Value, path: &str, flag: &str, text: &str) -> Result<(), LoadError> {
    let bad = |reason: &str| LoadError::BadValue {
        flag: flag.to_owned(),
        value: text.to_owned(),
        reason: reason.to_owned(),
    };
    let Some(slot) = tree.pointer_mut(&format!("/{}", path.replace('.', "/"))) else {
        return Err(bad("no such value"));
    };
    *slot = match slot {
        Value::Bool(_) => Value::Bool(text.parse().map_err(|_| bad("expected true or false"))?),
        Value::Number(old) if old.is_f64() => {
            let number: f64 = text.parse().map_err(|_| bad("expected a number"))?;
            serde_json::Number::from_f64(number)
                .map(Value::Number)
                .ok_or_else(|| bad("expected a finite number"))?
        }
        Value::Number(_) => {
            let number: i64 = text.parse().map_err(|_| bad("expected a whole number"))?;
            Value::Number(number.into())
        }
        Value::String(_) => Value::String(text.to_owned()),
        _ => serde_yaml::from_str(text).map_err(|e| bad(&e.to_string()))?,
    };
    // The tree is read once more at the end; this reading lets the error name the flag.
    serde_json::from_value::<Config>(tree.clone()).map(drop).map_err(|e| bad(&e.to_string()))
}

pub(super) fn merge(tree: &mut Value, document: Value, path: &str, file: &str) -> Result<(), LoadError> {
    let (Value::Object(known), Value::Object(fields)) = (&mut *tree, &document) else {
        *tree = document;
        return Ok(());
    };
    if known.is_empty() {
        *tree = document;
        return Ok(());
    }
    for (name, value) in fields {
        let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match known.get_mut(name) {
            Some(slot) if !value.is_null() => merge(slot, value.clone(), &field, file)?,
            Some(_) => {}
            None => {
                let nearest = nearest(name, known.keys().map(String::as_str));
                return Err(LoadError::UnknownField { path: file.to_owned(), field, nearest });
            }
        }
    }
    Ok(())
}

/// The known name most like `name`, if one is similar enough.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > 0.7)
        .map(|(_, candidate)| candidate.to_owned())
}

fn nearest_words(nearest: &Option<String>, dash: &str) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {dash}{name}?")).unwrap_or_default()
}

/// Replaces `${NAME}`, `${NAME:-default}` and `${NAME:=default}`; a missing variable is empty.
fn expand_variables(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let inside = &rest[start + 2..];
        let Some(end) = inside.find('}') else {
            out.push_str(&rest[start..]);
            return out;
        };
        let (name, default) = match inside[..end].split_once(":-").or(inside[..end].split_once(":=")) {
            Some((name, default)) => (name, default),
            None => (&inside[..end], ""),
        };
        match variable(name) {
            Some(value) if !value.is_empty() => out.push_str(&value),
            _ => out.push_str(default),
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> Result<Config, String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        load(&arguments).map(|loaded| loaded.config).map_err(|e| e.to_string())
    }

    #[test]
    fn one_dash_two_dashes_equals_and_space_mean_the_same() {
        for form in [
            &["-server.http-listen-port=5050"][..],
            &["--server.http-listen-port=5050"],
            &["-server.http-listen-port", "5050"],
        ] {
            assert_eq!(check(form).map(|c| c.server.http_listen_port), Ok(5050), "{form:?}");
        }
    }

    #[test]
    fn a_boolean_flag_needs_no_value() {
        assert_eq!(check(&["-auth.multitenancy-enabled"]).map(|c| c.multitenancy_enabled), Ok(true));
        assert_eq!(check(&["-auth.multitenancy-enabled=false"]).map(|c| c.multitenancy_enabled), Ok(false));
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        let error = check(&["-server.http-listen-prt=1"]).expect_err("unknown");
        assert_eq!(
            error,
            "flag -server.http-listen-prt is not known; did you mean -server.http-listen-port?"
        );
    }

    #[test]
    fn a_wrong_value_names_flag_and_value() {
        let error = check(&["-server.http-listen-port=many"]).expect_err("not a number");
        assert_eq!(error, r#"flag -server.http-listen-port cannot be "many": expected a whole number"#);
        assert!(check(&["-retention-period=soon"]).is_err_and(|e| e.contains("retention-period")));
    }

    #[test]
    fn the_flag_of_a_list_may_be_given_several_times() {
        let join = |arguments: &[&str]| check(arguments).map(|config| config.memberlist.join_members);
        assert_eq!(
            join(&["-memberlist.join=a:1,b:2", "-memberlist.join", "c:3"]).as_deref(),
            Ok("a:1,b:2,c:3")
        );
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), "memberlist:\n  join_members: [a, b]\n").expect("write");
        let file = format!("-config.file={}", file.path().display());
        assert_eq!(join(&[&file]).as_deref(), Ok("a,b"));
        assert_eq!(join(&[&file, "-memberlist.join=c"]).as_deref(), Ok("c"));
    }

    #[test]
    fn retention_has_both_names() {
        let week = limits::Duration::from_secs(7 * 24 * 3600);
        for flag in ["-retention-period=168h", "-storage.retention-period=168h", "-retention-period=7d"] {
            assert_eq!(check(&[flag]).map(|c| c.limits.retention_period), Ok(week), "{flag}");
        }
    }

    #[test]
    fn pyroscope_flags_without_a_meaning_here_are_accepted() {
        assert!(check(&["-usage-stats.enabled=false", "-memberlist.rejoin-interval", "1m"]).is_ok());
    }

    #[test]
    fn yaml_is_strict_and_flags_win_over_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, "server:\n  http_listen_port: 1\n  log_level: debug\n").expect("write");
        let file = format!("-config.file={}", file.display());
        let config = check(&[&file, "-server.http-listen-port=2"]).expect("loads");
        assert_eq!((config.server.http_listen_port, config.server.log_level.as_str()), (2, "debug"));

        let wrong = dir.path().join("wrong.yaml");
        std::fs::write(&wrong, "server:\n  http_listen_prt: 1\n").expect("write");
        let error = check(&[&format!("-config.file={}", wrong.display())]).expect_err("unknown field");
        assert!(
            error.ends_with("field server.http_listen_prt is not known; did you mean http_listen_port?"),
            "{error}"
        );
    }

    #[test]
    fn values_that_were_set_are_listed_even_if_equal_to_the_default() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), "querier: {cache_bytes: 134217728}\n").expect("write");
        let file = format!("-config.file={}", file.path().display());
        let loaded = load(&[file, "-server.http-listen-port=4040".into()]).expect("loads");
        assert_eq!(Vec::from_iter(loaded.set_paths), ["querier.cache_bytes", "server.http_listen_port"]);
    }

    #[test]
    fn variables_expand_with_defaults() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_owned());
        assert_eq!(expand_variables("${A} ${B:-y} ${B:=z} ${B} $A ${", lookup), "x y z  $A ${");
    }
}
