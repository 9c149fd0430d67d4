//! `config/reference.yaml`: every value with its meaning, flag and default.

use serde_json::Value;

use super::{Config, LoadError, flags, load};

/// The reference as YAML, made from the doc comments of the config structs.
pub(crate) fn reference() -> Result<String, LoadError> {
    let defaults = load::default_tree()?;
    let schema = schemars::schema_for!(Config).to_value();
    let mut out = String::from(
        "# Every value that can be set, with its default. Made by `make config-reference`; do not edit.\n",
    );
    write_fields(&mut out, &defaults, &schema, &schema, "", 0);
    Ok(out)
}

fn write_fields(out: &mut String, values: &Value, schema: &Value, root: &Value, prefix: &str, depth: usize) {
    let Value::Object(fields) = values else { return };
    let indent = "  ".repeat(depth);
    for (name, value) in fields {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let field = schema.pointer(&format!("/properties/{name}")).unwrap_or(&Value::Null);
        let target = resolve(field, root);
        let words = [field, target].iter().find_map(|s| s.get("description").and_then(Value::as_str));
        out.push('\n');
        for line in words.unwrap_or_default().lines() {
            out.push_str(format!("{indent}# {line}").trim_end());
            out.push('\n');
        }
        if value.as_object().is_some_and(|inner| !inner.is_empty()) {
            out.push_str(&format!("{indent}{name}:\n"));
            write_fields(out, value, target, root, &path, depth + 1);
        } else {
            let flags: Vec<String> = flags::flags_of(&path).iter().map(|f| format!("-{f}")).collect();
            out.push_str(&format!("{indent}# Flag: {}\n{indent}{name}: {value}\n", flags.join(", ")));
        }
    }
}

/// Follows `$ref`, also inside the one-element `allOf` of a reference with a description.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    match reference.and_then(|r| root.pointer(r.trim_start_matches('#'))) {
        Some(target) => target,
        None => schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_reference_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/reference.yaml");
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stored == reference().expect("reference"),
            "config/reference.yaml is stale: run `make config-reference`"
        );
    }

    #[test]
    fn every_value_is_explained() {
        let text = reference().expect("reference");
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            if line.trim_start().starts_with("# Flag:") {
                let before = lines[i - 1].trim_start();
                assert!(before.starts_with("# "), "{} has no doc comment", lines[i + 1]);
            }
        }
    }
}
