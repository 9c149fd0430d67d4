//! Reads the configuration: defaults, then the YAML file, then flags, in one tree.
//!
//! Unknown names are errors that suggest the nearest known name.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
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
    #[error("config file {path}: {field} is {found}, expected a mapping")]
    NotAMapping { path: String, field: String, found: &'static str },
    #[error("config file {path}: {variable}")]
    Variable { path: String, variable: BadVariable },
    #[error("config{}: {field}: {reason}", .path.as_ref().map(|path| format!(" file {path}")).unwrap_or_default())]
    BadField { path: Option<String>, field: String, reason: String },
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
            _ => warnings.push(flags::ignored_warning(&flag)),
        }
    }
    if let Some(path) = file {
        let error = |reason: String| LoadError::File { path: path.clone(), reason };
        let mut text = std::fs::read_to_string(&path).map_err(|e| error(e.to_string()))?;
        if expand {
            #[allow(clippy::disallowed_methods, reason = "config.expand-env asks for the environment")]
            let environment = |name: &str| std::env::var(name).ok();
            text = expand_variables(&text, environment)
                .map_err(|variable| LoadError::Variable { path: path.clone(), variable })?;
        }
        let mut document = yaml(&text).map_err(|e| error(e.to_string()))?;
        for section in flags::take_ignored_sections(&mut document) {
            warnings
                .push(format!("config file {path}: section {section} has no meaning here and is ignored"));
        }
        if !document.is_null() {
            set_paths.extend(leaves(&document, ""));
            merge(&mut tree, document, "", &path)?;
            parse(&tree, Some(&path))?;
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
    let config = parse(&tree, None)?;
    Ok(LoadedConfig { config, set_paths, warnings })
}

pub(super) fn default_tree() -> Result<Value, LoadError> {
    let bad = |reason| LoadError::BadField { path: None, field: "defaults".to_owned(), reason };
    serde_json::to_value(Config::default()).map_err(|error| bad(error.to_string()))
}

/// Reads YAML without keeping its comments: the parser limits how many it keeps.
pub(super) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, serde_yaml::Error> {
    serde_yaml::from_str_with_options(text, serde_yaml::options! { emit_comments: false })
}

/// Reads the tree, with values of the config file at `path`.
fn parse(tree: &Value, path: Option<&str>) -> Result<Config, LoadError> {
    serde_path_to_error::deserialize(tree).map_err(|error| LoadError::BadField {
        path: path.map(str::to_owned),
        field: error.path().to_string(),
        reason: error.inner().to_string(),
    })
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
        _ => yaml(text).map_err(|e| bad(&e.to_string()))?,
    };
    // The tree is read once more at the end; this reading lets the error name the flag.
    serde_json::from_value::<Config>(tree.clone()).map(drop).map_err(|e| bad(&e.to_string()))
}

pub(super) fn merge(tree: &mut Value, document: Value, path: &str, file: &str) -> Result<(), LoadError> {
    let known = match &mut *tree {
        Value::Object(known) if !known.is_empty() => known,
        value => {
            *value = document;
            return Ok(());
        }
    };
    let Value::Object(fields) = &document else {
        let (path, field) = (file.to_owned(), if path.is_empty() { "the document" } else { path }.to_owned());
        return Err(LoadError::NotAMapping { path, field, found: kind_of(&document) });
    };
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

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
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

/// A use of a variable that cannot be replaced.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{form} in line {line}{problem}")]
pub(crate) struct BadVariable {
    /// As in the text, with its braces.
    form: String,
    line: usize,
    problem: String,
}

/// Replaces the forms of a shell for a variable that may be missing. `${NAME}` is empty without it, `${NAME:-default}` and
/// `${NAME:=default}` are the default if it is missing or empty, `${NAME-default}` and `${NAME=default}` if it is missing.
///
/// # Errors
/// A variable of `${NAME:?text}` is missing or empty, or one of `${NAME?text}` is missing; any other form.
fn expand_variables(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, BadVariable> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let inside = &rest[start + 2..];
        let bad = |form: &str, problem: String| {
            let line = 1 + text[..text.len() - inside.len()].matches('\n').count();
            BadVariable { form: form.to_owned(), line, problem }
        };
        let Some(end) = inside.find('}') else {
            return Err(bad("${", " has no closing brace".to_owned()));
        };
        let form = &rest[start..start + 2 + end + 1];
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, rule) = inside[..end].split_at(inside[..end].find(|c| !is_of_name(c)).unwrap_or(end));
        let (is_empty_missing, operator) = match rule.strip_prefix(':') {
            Some(operator) => (true, operator),
            None => (false, rule),
        };
        let value = variable(name).filter(|value| !(is_empty_missing && value.is_empty()));
        match (value, operator.split_at_checked(1)) {
            _ if name.is_empty() => return Err(bad(form, " names no variable".to_owned())),
            (value, None) if !is_empty_missing => out.push_str(&value.unwrap_or_default()),
            (Some(value), Some(("-" | "=" | "?", _))) => out.push_str(&value),
            (None, Some(("-" | "=", default))) => out.push_str(default),
            (None, Some(("?", reason))) => return Err(bad(form, format!(": {name} is not set: {reason}"))),
            _ => {
                let problem = format!(" has an unknown form; a default is written ${{{name}:-default}}");
                return Err(bad(form, problem));
            }
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
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
    fn variables_expand_with_the_forms_of_a_shell() {
        let lookup = |name: &str| match name {
            "A" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let expand = |text: &str| expand_variables(text, lookup).map_err(|bad| (bad.line, bad.problem));
        for (text, expanded) in [
            ("${A} ${B:-y} ${B:=z} ${B-y} ${B=z} ${B} $A", "x y z y z  $A"),
            ("${EMPTY:-y}|${EMPTY-y}|${EMPTY:=z}|${EMPTY=z}|${EMPTY?no}", "y||z||"),
            ("${A:?no} ${A?no} ${A:-y} ${A-y}", "x x x x"),
            ("${B:-http://h:80/a-b?c=d}", "http://h:80/a-b?c=d"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expanded), "{text}");
        }
        let missing = |line, reason: &str| Err((line, format!(": B is not set: {reason}")));
        assert_eq!(expand("a\nb ${B:?put it into the unit file}"), missing(2, "put it into the unit file"));
        assert_eq!(expand("${B?}"), missing(1, ""));
        let refused = |text: &str, problem: &str| {
            assert!(
                expand(text).is_err_and(|(_, text_of_problem)| text_of_problem.contains(problem)),
                "{text}"
            );
        };
        refused("${EMPTY:?}", "EMPTY is not set");
        refused("${B:90d}", "has an unknown form; a default is written ${B:-default}");
        refused("${A:+y}", "has an unknown form");
        refused("${A:}", "has an unknown form");
        refused("${A%x}", "has an unknown form");
        refused("${}", "names no variable");
        refused("${A", "has no closing brace");
    }

    /// The error of a file with this content.
    fn refusal(content: &str) -> String {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(file.path(), content).expect("write");
        let path = file.path().display().to_string();
        let error = check(&[&format!("-config.file={path}")]).expect_err("refused");
        error.strip_prefix(&format!("config file {path}: ")).expect("names the file").to_owned()
    }

    #[test]
    fn a_wrong_value_in_a_file_names_file_field_and_value() {
        let lots = refusal("limits:\n  max_profile_size_bytes: lots\n");
        assert_eq!(lots, r#"limits.max_profile_size_bytes: invalid type: string "lots", expected usize"#);
        assert!(refusal("ingester: {segment_duration: '30'}").starts_with("ingester.segment_duration: "));
        assert!(refusal("server: {http_listen_port: 70000}").starts_with("server.http_listen_port: "));
        assert!(refusal("storage: {backend: tape}").starts_with("storage.backend: "));
        assert_eq!(refusal("limits: [7]"), "limits is a list, expected a mapping");
        assert_eq!(refusal("[7]"), "the document is a list, expected a mapping");
        assert_eq!(refusal("server: 4040"), "server is a number, expected a mapping");
    }

    #[test]
    fn a_file_may_have_any_number_of_comments_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        let argument = format!("-config.file={}", file.path().display());
        let remarks = "  # remark\n".repeat(1000);
        std::fs::write(file.path(), format!("server:\n{remarks}  http_listen_port: 7\n")).expect("write");
        assert_eq!(check(&[&argument]).map(|config| config.server.http_listen_port), Ok(7));
        std::fs::write(file.path(), remarks).expect("write");
        assert!(check(&[&argument]).is_ok());
    }

    #[test]
    fn pyroscope_sections_without_a_meaning_here_are_ignored_with_a_warning() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        std::fs::write(
            file.path(),
            "analytics: {reporting_enabled: false}\ntracing:\nserver: {http_listen_port: 7}\n",
        )
        .expect("write");
        let loaded = load(&[format!("-config.file={}", file.path().display())]).expect("loads");
        assert_eq!(loaded.config.server.http_listen_port, 7);
        let warned = |section: &str| loaded.warnings.iter().any(|text| text.contains(section));
        assert!(warned("section analytics has no meaning here") && warned("section tracing"));
    }
}
