//! The file `sample_type_config` of a form.

use hashbrown::HashMap;
use serde::Deserialize;

/// The file `sample_type_config` of a form: display names for the sample types of the client's pprof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleTypeConfig {
    /// Display name of each sample type, empty if it has none.
    display_names: HashMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
#[error("sample_type_config is not a JSON object of sample types")]
pub struct ConfigError(#[from] serde_json::Error);

/// The fields with an effect; others are ignored.
#[derive(Deserialize)]
struct SampleType {
    #[serde(rename = "display-name")]
    display_name: Option<String>,
}

impl Default for SampleTypeConfig {
    /// The configuration for clients that send none.
    fn default() -> Self {
        let names = [
            ("samples", "cpu"),
            ("goroutine", "goroutines"),
            ("contentions", "mutex_count"),
            ("delay", "mutex_duration"),
            ("inuse_objects", ""),
            ("inuse_space", ""),
            ("alloc_objects", ""),
            ("alloc_space", ""),
        ];
        let owned = names.map(|(name, display)| (name.to_owned(), display.to_owned()));
        Self { display_names: owned.into_iter().collect() }
    }
}

impl SampleTypeConfig {
    /// # Errors
    /// If `json` is not an object of objects.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let types: std::collections::BTreeMap<String, Option<SampleType>> = serde_json::from_slice(json)?;
        let display_name =
            |sample_type: Option<SampleType>| sample_type.and_then(|t| t.display_name).unwrap_or_default();
        Ok(Self { display_names: types.into_iter().map(|(name, of)| (name, display_name(of))).collect() })
    }

    /// Whether a pprof of this client needs [`crate::pprof::decode_dotnet`].
    pub fn is_dotnet(&self, spy_name: &str) -> bool {
        spy_name == "dotnetspy" || (spy_name == "unknown" && self.display_names.contains_key("inuse-space"))
    }

    /// `__name__` of the series of a pprof with these sample types, in their order.
    pub fn series_name<'a>(&self, sample_types: impl IntoIterator<Item = &'a str>) -> String {
        let sample_types: Vec<&str> = sample_types.into_iter().collect();
        if sample_types.contains(&"wall") {
            return "wall".to_owned();
        }
        let mut shown = "";
        for sample_type in sample_types {
            let display_name = self.display_names.get(sample_type);
            shown = display_name.filter(|name| !name.is_empty()).map_or(sample_type, |name| name);
            let name = match shown {
                s if s.contains("cpu") => "process_cpu",
                s if s.contains("alloc_") || s.contains("inuse_") => "memory",
                "space" | "objects" => "memory",
                s if s.contains("mutex_") => "mutex",
                s if s.contains("block_") => "block",
                s if s.contains("goroutines") => "goroutines",
                _ => continue,
            };
            return name.to_owned();
        }
        shown.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_types_name_the_series() {
        let cases: [(&[&str], &str); 9] = [
            (&["samples", "cpu"], "process_cpu"),
            (&["samples", "wall"], "wall"),
            (&["alloc_objects", "alloc_space"], "memory"),
            (&["objects", "space"], "memory"),
            (&["contentions", "delay"], "mutex"),
            (&["goroutine"], "goroutines"),
            (&["goroutine_leak"], "goroutine_leak"),
            (&["a", "exception"], "exception"),
            (&[], ""),
        ];
        for (types, expected) in cases {
            let name = SampleTypeConfig::default().series_name(types.iter().copied());
            assert_eq!(name, expected, "{types:?}");
        }
    }

    #[test]
    fn an_uploaded_config_replaces_the_default_one() {
        let json = br#"{"contentions": {"units": "lock_samples", "display-name": "block_count"},
            "delay": {"display-name": ""}, "x": null, "samples": {}}"#;
        let config = SampleTypeConfig::parse(json).unwrap();
        assert_eq!(config.series_name(["contentions", "delay"]), "block");
        assert_eq!(config.series_name(["delay"]), "delay");
        assert_eq!(config.series_name(["samples"]), "samples");
        for wrong in ["", "[]", "{\"a\": 1}", "{"] {
            assert!(SampleTypeConfig::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dotnet_is_told_by_its_spy_or_by_its_config() {
        let config = SampleTypeConfig::parse(br#"{"inuse-space": {}}"#).unwrap();
        assert!(config.is_dotnet("unknown"));
        assert!(!config.is_dotnet("gospy"));
        assert!(SampleTypeConfig::default().is_dotnet("dotnetspy"));
        assert!(!SampleTypeConfig::default().is_dotnet("unknown"));
    }
}
