//! Parses and applies label selectors, in the syntax of a Prometheus instant-vector selector.
//!
//! Owns: the grammar, the four operators, anchoring and size limits of regular expressions.
//! Does not own: which labels a series has ([`crate::scan`]).

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use model::label_names::{NAME, is_service_name};
use regex::{Regex, RegexBuilder};

/// Longest selector, in bytes; a longer one is refused before it is parsed.
pub const SELECTOR_BYTES_MAX: usize = 64 << 10;

/// Largest compiled regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Most matchers in one selector.
pub const MATCHERS_MAX: usize = 256;

/// Most bytes of a selector or a pattern that an error repeats.
const SHOWN_BYTES_MAX: usize = 120;

/// Label matchers, all of which must hold. Empty: every series matches.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    pub matchers: Vec<Matcher>,
}

/// One `name op value`.
#[derive(Clone, Debug)]
pub struct Matcher {
    pub name: Box<str>,
    pub value: Box<str>,
    pub op: Op,
}

#[derive(Clone, Debug)]
pub enum Op {
    Equal,
    NotEqual,
    Matches(Pattern),
    MatchesNot(Pattern),
}

/// A regular expression that must match whole values.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Alternatives of plain text, as made from a list of selected values: one lookup for any number of them.
    Literals(Arc<HashSet<Box<str>>>),
    Expression(Regex),
}

impl Pattern {
    fn is_match(&self, value: &str) -> bool {
        match self {
            Self::Literals(literals) => literals.contains(value),
            Self::Expression(regex) => regex.is_match(value),
        }
    }
}

/// An error in a selector, with its position.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("1:{column}: parse error: {problem}")]
pub struct SelectorError {
    /// Counted in bytes from 1.
    pub column: usize,
    pub problem: String,
}

impl Matcher {
    /// A matcher for exactly `value`.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.into(), value: value.into(), op: Op::Equal }
    }

    /// A matcher for whole values that `pattern` matches, or does not match.
    ///
    /// # Errors
    /// A description of the error in the pattern.
    pub fn regex(name: &str, pattern: &str, negated: bool) -> Result<Self, String> {
        let compiled = compile(pattern)?;
        let op = if negated { Op::MatchesNot(compiled) } else { Op::Matches(compiled) };
        Ok(Self { name: name.into(), value: pattern.into(), op })
    }

    /// `value` is the empty string where the series lacks the label.
    pub fn matches(&self, value: &str) -> bool {
        match &self.op {
            Op::Equal => *self.value == *value,
            Op::NotEqual => *self.value != *value,
            Op::Matches(regex) => regex.is_match(value),
            Op::MatchesNot(regex) => !regex.is_match(value),
        }
    }

    /// All values that can match, if they can be listed: those of `=`, and of `=~` with plain alternatives.
    fn values(&self) -> Option<Vec<&str>> {
        match &self.op {
            Op::Equal => Some(vec![&self.value]),
            Op::Matches(Pattern::Literals(literals)) => {
                Some(literals.iter().map(|literal| &**literal).collect())
            }
            _ => None,
        }
    }
}

impl Selector {
    /// Parses one selector. `{}` matches everything; the empty string is an error.
    ///
    /// # Errors
    /// Names the first invalid part and its position.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            let problem = format!("selector has {} bytes, limit is {SELECTOR_BYTES_MAX}", text.len());
            return Err(SelectorError { column: 1, problem });
        }
        Parser { text, position: 0 }.selector()
    }

    /// Parses several selectors, all of which must hold.
    ///
    /// # Errors
    /// The first error, with the text of its selector; the text is empty if all together have too many matchers.
    pub fn parse_all<S: AsRef<str>>(texts: &[S]) -> Result<Self, (String, SelectorError)> {
        let mut all = Self::default();
        for text in texts {
            let text = text.as_ref();
            all.matchers.extend(Self::parse(text).map_err(|e| (text.to_owned(), e))?.matchers);
        }
        if all.matchers.len() > MATCHERS_MAX {
            let problem = format!("{} matchers, limit is {MATCHERS_MAX}", all.matchers.len());
            return Err((String::new(), SelectorError { column: 1, problem }));
        }
        Ok(all)
    }

    pub fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    /// The only services that can match, if the selector lists them.
    pub fn services(&self) -> Option<Vec<String>> {
        let listed = self.matchers.iter().filter(|m| is_service_name(&m.name));
        let mut smallest = listed.filter_map(Matcher::values).min_by_key(Vec::len)?;
        smallest.sort_unstable();
        // A series always has a service, so only an impossible selector asks for none.
        Some(smallest.into_iter().map(str::to_owned).collect())
    }

    /// Removes the first matcher `name="value"`, and returns its value.
    pub fn take_equal(&mut self, name: &str) -> Option<Box<str>> {
        let index = self.matchers.iter().position(|m| *m.name == *name && matches!(m.op, Op::Equal))?;
        Some(self.matchers.remove(index).value)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.matchers.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let op = match matcher.op {
                Op::Equal => "=",
                Op::NotEqual => "!=",
                Op::Matches(_) => "=~",
                Op::MatchesNot(_) => "!~",
            };
            let (name, value) = (&matcher.name, Quoted(&matcher.value));
            if is_label_name(name) {
                write!(f, "{comma}{name}{op}{value}")?;
            } else {
                write!(f, "{comma}{}{op}{value}", Quoted(name))?;
            }
        }
        f.write_str("}")
    }
}

/// Displays a string in the quotes and escapes of [`Selector::parse`], which does not support all of Rust's escapes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Whether `name` needs no quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
}

impl Parser<'_> {
    fn selector(mut self) -> Result<Selector, SelectorError> {
        let mut matchers = Vec::new();
        self.skip_space();
        let metric = self.take_while(|c, first| {
            c.is_ascii_alphabetic() || c == '_' || c == ':' || (!first && c.is_ascii_digit())
        });
        if !metric.is_empty() {
            matchers.push(Matcher::equal(NAME, &metric));
        }
        self.skip_space();
        match self.peek() {
            Some('{') => self.braces(&mut matchers)?,
            None if !matchers.is_empty() => {}
            None => return Err(self.fail("unexpected end of input")),
            Some(c) => return Err(self.fail(format!("unexpected character: {c:?}"))),
        }
        self.skip_space();
        match self.peek() {
            None => Ok(Selector { matchers }),
            Some(c) => Err(self.fail(format!("unexpected {c:?} after the selector"))),
        }
    }

    fn braces(&mut self, matchers: &mut Vec<Matcher>) -> Result<(), SelectorError> {
        self.position += 1;
        loop {
            self.skip_space();
            match self.peek() {
                Some('}') => {
                    self.position += 1;
                    return Ok(());
                }
                None => return Err(self.fail("unexpected end of input inside braces")),
                Some(_) => {}
            }
            if matchers.len() == MATCHERS_MAX {
                return Err(self.fail(format!("more than {MATCHERS_MAX} matchers")));
            }
            matchers.push(self.matcher()?);
            self.skip_space();
            match self.peek() {
                Some(',') => self.position += 1,
                Some('}') => {}
                None => return Err(self.fail("unexpected end of input inside braces")),
                Some(c) => {
                    let problem = format!("unexpected {c:?} in label matching, expected \",\" or \"}}\"");
                    return Err(self.fail(problem));
                }
            }
        }
    }

    fn matcher(&mut self) -> Result<Matcher, SelectorError> {
        let start = self.position;
        let quoted = matches!(self.peek(), Some('"' | '\'' | '`'));
        let name = if quoted {
            self.string()?
        } else {
            self.take_while(|c, first| c.is_ascii_alphabetic() || c == '_' || (!first && c.is_ascii_digit()))
        };
        if name.is_empty() {
            let found = self.peek().map_or_else(String::new, |c| format!("{c:?}"));
            return Err(
                self.fail(format!("unexpected {found} in label matching, expected a label name or \"}}\""))
            );
        }
        self.skip_space();
        let operator = self.position;
        let rest = &self.text[self.position..];
        let (negated, regex) = match rest.as_bytes() {
            [b'=', b'~', ..] => (false, true),
            [b'!', b'~', ..] => (true, true),
            [b'!', b'=', ..] => (true, false),
            [b'=', ..] => (false, false),
            // `{"metric.name"}` alone is the name of the metric.
            [b',' | b'}', ..] if quoted => return Ok(Matcher::equal(NAME, &name)),
            _ => {
                let found = self.peek().map_or("end of input".into(), |c| format!("{c:?}"));
                return Err(self.fail(format!(
                    "unexpected {found} in label matching after {name:?}, expected one of = != =~ !~"
                )));
            }
        };
        self.position = operator + if negated || regex { 2 } else { 1 };
        self.skip_space();
        if !matches!(self.peek(), Some('"' | '\'' | '`')) {
            let found = self.peek().map_or("end of input".into(), |c| format!("{c:?}"));
            return Err(self.fail(format!(
                "unexpected {found} in label matching after {name:?}, expected a quoted string"
            )));
        }
        let value = self.string()?;
        let op = match (negated, regex) {
            (false, false) => Op::Equal,
            (true, false) => Op::NotEqual,
            (negated, true) => {
                let compiled = compile(&value).map_err(|problem| SelectorError {
                    column: start + 1,
                    problem: format!("error parsing regexp of {name:?}: {problem}"),
                })?;
                if negated { Op::MatchesNot(compiled) } else { Op::Matches(compiled) }
            }
        };
        Ok(Matcher { name: name.into(), value: value.into(), op })
    }

    /// Parses a string in double, single or back quotes, the first two with the escapes of Go.
    fn string(&mut self) -> Result<String, SelectorError> {
        let start = self.position;
        let unterminated = |parser: &Self| SelectorError {
            column: start + 1,
            problem: format!("unterminated quoted string {}", shown(&parser.text[start..])),
        };
        let Some(quote) = self.next() else {
            return Err(unterminated(self));
        };
        let mut bytes = Vec::new();
        loop {
            let position = self.position;
            match self.next() {
                None => return Err(unterminated(self)),
                Some('\n') if quote != '`' => return Err(unterminated(self)),
                Some(c) if c == quote => break,
                Some('\\') if quote != '`' => self.escape(position, quote, &mut bytes)?,
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(bytes)
            .map_err(|_| SelectorError { column: start + 1, problem: "string is not valid UTF-8".into() })
    }

    /// Parses the rest of an escape whose backslash is at `start`.
    fn escape(&mut self, start: usize, quote: char, bytes: &mut Vec<u8>) -> Result<(), SelectorError> {
        let fail = |problem: String| SelectorError { column: start + 1, problem };
        let Some(c) = self.next() else {
            return Err(fail("unterminated escape sequence".into()));
        };
        let plain = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            c if c == quote => c as u8,
            _ => 0,
        };
        if plain != 0 {
            bytes.push(plain);
            return Ok(());
        }
        let (radix, digits) = match c {
            'x' => (16, 2),
            'u' => (16, 4),
            'U' => (16, 8),
            '0'..='7' => {
                self.position -= 1;
                (8, 3)
            }
            c => return Err(fail(format!("unknown escape sequence \\{c}"))),
        };
        let end = self.position + digits;
        let number = self.text.get(self.position..end).and_then(|d| u32::from_str_radix(d, radix).ok());
        self.position = end.min(self.text.len());
        match (c, number) {
            ('u' | 'U', Some(number)) => match char::from_u32(number) {
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                None => return Err(fail(format!("escape \\{c} names no character"))),
            },
            (_, Some(number @ 0..=255)) => bytes.push(number as u8),
            _ => return Err(fail(format!("escape \\{c} needs {digits} digits"))),
        }
        Ok(())
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char, bool) -> bool) -> String {
        let start = self.position;
        while let Some(c) = self.peek() {
            if !wanted(c, self.position == start) {
                break;
            }
            self.position += c.len_utf8();
        }
        self.text[start..self.position].to_owned()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.position += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.position..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += c.len_utf8();
        Some(c)
    }

    fn fail(&self, problem: impl Into<String>) -> SelectorError {
        SelectorError { column: self.position + 1, problem: problem.into() }
    }
}

/// Compiles an expression so that it matches whole values only.
fn compile(pattern: &str) -> Result<Pattern, String> {
    if let Some(literals) = literals(pattern) {
        return Ok(Pattern::Literals(Arc::new(literals)));
    }
    if pattern.contains(')') {
        // `a)|(b` is invalid, but would close and reopen the group that is put around it.
        build(pattern, pattern)?;
    }
    build(&format!("^(?s:{pattern})$"), pattern).map(Pattern::Expression)
}

/// The values that a pattern matches if it consists only of plain-text alternatives, possibly in one group:
/// `a|b`, `(a|b)`, `(?:a\.b|c)`.
fn literals(pattern: &str) -> Option<HashSet<Box<str>>> {
    let open = ["(?:", "("].into_iter().find_map(|group| pattern.strip_prefix(group));
    let inner = open.and_then(|rest| rest.strip_suffix(')')).unwrap_or(pattern);
    let mut literals = HashSet::new();
    let mut literal = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '|' => {
                literals.insert(std::mem::take(&mut literal).into());
            }
            '\\' => match chars.next()? {
                // The end and the start of a word.
                '<' | '>' => return None,
                escaped if escaped.is_ascii_punctuation() => literal.push(escaped),
                _ => return None,
            },
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            plain => literal.push(plain),
        }
    }
    literals.insert(literal.into());
    Some(literals)
}

fn build(expression: &str, pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(expression).size_limit(REGEX_BYTES_MAX).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("{:?} is too large, limit is {REGEX_BYTES_MAX} bytes compiled", shown(pattern))
        }
        // The last line of the long form is the description; the others show the position.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("{} in {:?}", last.strip_prefix("error: ").unwrap_or(last), shown(pattern))
        }
    })
}

/// A text from a client, shortened for a message.
pub fn shown(text: &str) -> String {
    match text.len() {
        0..=SHOWN_BYTES_MAX => text.to_owned(),
        bytes => format!("{}… ({bytes} bytes)", &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_parsed_as_by_prometheus() {
        let cases = [
            ("{}", "{}"),
            (" { } ", "{}"),
            ("foo", r#"{__name__="foo"}"#),
            ("a:b:c::{x=\"y\"}", r#"{__name__="a:b:c::",x="y"}"#),
            (r#"{a="1",}"#, r#"{a="1"}"#),
            (r#"{ a = "1" , b != '2', c=~`x|y`, d !~ "" }"#, r#"{a="1",b!="2",c=~"x|y",d!~""}"#),
            (r#"{"service.name"="ü"}"#, r#"{"service.name"="ü"}"#),
            (r#"{"up.time", a="b"}"#, r#"{__name__="up.time",a="b"}"#),
            (r#"{a="\x41\u00fc\101\n\""}"#, "{a=\"AüA\\n\\\"\"}"),
            (r#"foo{__name__="bar"}"#, r#"{__name__="foo",__name__="bar"}"#),
        ];
        for (text, expected) in cases {
            let read = Selector::parse(text).map(|s| s.to_string());
            assert_eq!(read.as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn displayed_selectors_parse_back_unchanged() {
        for value in ["a\"b\\c", "\0\t\r\n\x7f", "zero\u{200b}width", "e\u{301}\u{e000}\u{1f600}", "\u{85}"] {
            let matchers = vec![Matcher::equal(value, "v"), Matcher::equal("name", value)];
            let text = Selector { matchers }.to_string();
            let read = Selector::parse(&text).expect(&text);
            let pairs: Vec<(&str, &str)> = read.matchers.iter().map(|m| (&*m.name, &*m.value)).collect();
            assert_eq!(pairs, [(value, "v"), ("name", value)], "{text}");
        }
    }

    #[test]
    fn errors_name_the_part_and_its_position() {
        let cases = [
            ("", "1:1: parse error: unexpected end of input"),
            ("{", "1:2: parse error: unexpected end of input inside braces"),
            ("}", "1:1: parse error: unexpected character: '}'"),
            ("{env}", "after \"env\", expected one of"),
            ("{env=}", "after \"env\", expected a quoted string"),
            ("{env=a}", "1:6:"),
            (r#"{env="a""#, "1:9: parse error: unexpected end of input inside braces"),
            (r#"{env=="a"}"#, "1:6:"),
            (r#"{env=~"("}"#, "1:2: parse error: error parsing regexp of \"env\""),
            (r#"{env=~"a{2,1}"}"#, "invalid repetition"),
            (r#"{="a"}"#, "expected a label name"),
            (r#"{env="a" host="h1"}"#, "1:10:"),
            ("sum(x)", "1:4:"),
            (r#"{env="a"}[5m]"#, "1:10:"),
            (r#"{1a="x"}"#, "1:2:"),
            ("{} {}", "1:4:"),
            (r#"{env="\q"}"#, "unknown escape sequence \\q"),
            (r#"{a.b="x"}"#, "1:3:"),
            (r#"{a="x"#, "unterminated"),
            (r#"{a="\"#, "unterminated"),
            (r#"{a=~"x)|(y"}"#, "unopened group"),
            (r#"{a="\xü"}"#, "needs 2 digits"),
        ];
        for (text, expected) in cases {
            let error = Selector::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn expressions_match_whole_values_and_absent_labels_are_empty() {
        let matches = |text: &str, value: &str| {
            let selector = Selector::parse(text).expect(text);
            selector.matchers[0].matches(value)
        };
        assert!(matches(r#"{a=~"x|y"}"#, "y"));
        assert!(!matches(r#"{a=~"x|y"}"#, "xy"));
        assert!(matches(r#"{a=~"x.y"}"#, "x\ny"));
        assert!(matches(r#"{a!~"x"}"#, ""));
        assert!(matches(r#"{a=""}"#, ""));
        assert!(!matches(r#"{a!=""}"#, ""));
    }

    #[test]
    fn alternatives_of_plain_text_are_a_set_of_any_size() {
        let names: Vec<String> = (0..5000).map(|i| format!("pod-{i:04}")).collect();
        for pattern in
            [names.join("|"), format!("({})", names.join("|")), names.join("|").replace('-', r"\-")]
        {
            let Ok(matcher) = Matcher::regex("pod", &pattern, false) else { panic!("{}", shown(&pattern)) };
            assert!(matches!(&matcher.op, Op::Matches(Pattern::Literals(set)) if set.len() == 5000));
            assert!(matcher.matches("pod-4999"));
            assert!(!matcher.matches("pod-5000"));
        }
        let most = format!("{{pod=~{:?}}}", names.join("|"));
        assert!(most.len() > 40_000 && Selector::parse(&most).is_ok());
    }

    #[test]
    fn literal_sets_match_like_their_expressions() {
        let values = ["", "a", "b", "a.b", "axb", "a|b", "(a", "a)", "ab", "a-b", "A"];
        let sets =
            ["a|b", "(a|b)", "(?:a|)", r"a\.b|c", r"a\|b", r"\(a|a\)", "a-b", r"a\-b", "", "()", "a||b"];
        for pattern in sets {
            let regex = build(&format!("^(?s:{pattern})$"), pattern).unwrap();
            let set = Pattern::Literals(Arc::new(literals(pattern).expect(pattern)));
            for value in values {
                assert_eq!(set.is_match(value), regex.is_match(value), "{pattern:?} {value:?}");
            }
        }
        for pattern in
            ["a.b", "a+", "(?i)a", "(a)|(b)", "(a|(b))", r"\d", r"\<a", "^a", "a$", "[a]", "a{2}", r"a\"]
        {
            assert_eq!(literals(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn errors_do_not_repeat_a_long_selector() {
        let long = "x".repeat(10_000);
        let texts =
            [format!("{{a=~\"{long}(\"}}"), format!("{{a=~\"({long}){{1000}}\"}}"), format!("{{a=\"{long}")];
        for text in texts {
            let error = Selector::parse(&text).unwrap_err().to_string();
            assert!(error.len() < 400, "{error}");
        }
    }

    #[test]
    fn huge_expressions_are_refused() {
        assert!(Selector::parse(r#"{a=~"((a{100}){100}){100}"}"#).is_err());
        assert!(Selector::parse(&format!("{{a={:?}}}", "x".repeat(SELECTOR_BYTES_MAX))).is_err());
    }

    #[test]
    fn services_are_known_if_the_selector_lists_them() {
        let services = |text: &str| Selector::parse(text).expect(text).services();
        assert_eq!(services(r#"{service_name="a"}"#), Some(vec!["a".into()]));
        assert_eq!(services(r#"{service_name=~"a|b-c"}"#), Some(vec!["a".into(), "b-c".into()]));
        assert_eq!(services(r#"{service_name=~"(b\\.x|a)"}"#), Some(vec!["a".into(), "b.x".into()]));
        assert_eq!(services(r#"{service_name=~"a.*"}"#), None);
        assert_eq!(services(r#"{service_name!="a"}"#), None);
    }
}
