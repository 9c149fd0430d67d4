//! File names in the frame names of scripting languages.

use model::Profile;

/// Most bytes that file names in frame names may add to one profile.
const ADDED_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("frame names with their files in front take more than the limit of {ADDED_BYTES_MAX} bytes")]
pub struct FrameNamesTooLong;

/// Puts the file in front of each function name if `spy_name` is a sampler of a scripting language, whose users
/// expect this form. Python files with an absolute path are left out.
///
/// # Errors
/// If that would make the profile too large.
pub fn put_files_into_frame_names(profile: &mut Profile, spy_name: &str) -> Result<(), FrameNamesTooLong> {
    if !matches!(spy_name, "pyspy" | "rbspy" | "scripting") {
        return Ok(());
    }
    let symbols = &mut profile.symbols;
    let mut added = 0;
    for function in &mut symbols.functions {
        let file = symbols.strings.get(function.filename);
        if spy_name == "pyspy" && file.starts_with(b"/") {
            continue;
        }
        let name = symbols.strings.get(function.name);
        added += file.len() + 1 + name.len();
        if added > ADDED_BYTES_MAX {
            return Err(FrameNamesTooLong);
        }
        let name = [file, b" ", name].concat();
        function.name = symbols.strings.push(&name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Function;

    fn renamed(spy_name: &str, file: &[u8]) -> String {
        let mut profile = Profile::default();
        let strings = &mut profile.symbols.strings;
        strings.push(b"");
        let function =
            Function { name: strings.push(b"run"), filename: strings.push(file), ..Function::default() };
        profile.symbols.functions.push(function);
        put_files_into_frame_names(&mut profile, spy_name).unwrap();
        let name = profile.symbols.functions[0].name;
        profile.symbols.strings.text(name).into_owned()
    }

    #[test]
    fn scripts_show_their_file_before_the_function() {
        assert_eq!(renamed("pyspy", b"app.py"), "app.py run");
        assert_eq!(renamed("pyspy", b"/lib/app.py"), "run");
        assert_eq!(renamed("rbspy", b"/lib/app.rb"), "/lib/app.rb run");
        assert_eq!(renamed("gospy", b"main.go"), "run");
    }
}
