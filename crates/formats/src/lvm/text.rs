//! The text that LVM2 keeps its metadata in: a tree of sections, with lists, numbers and strings.
//!
//! ```text
//! section  = { name "{" section "}" | name "=" value }
//! value    = scalar | "[" [ scalar { "," scalar } ] "]"
//! scalar   = integer | real | '"' string '"'
//! comment  = "#" up to the end of the line
//! ```

use std::fmt;

/// The deepest that sections may lie in each other; LVM itself needs five.
const DEPTH_MAX: usize = 16;
/// The longest name, bytes; LVM's are at most 127.
const NAME_MAX: usize = 256;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number. Reals, of which LVM writes none in metadata, are cut to one.
    Number(i64),
    /// A string, its escapes resolved.
    Text(String),
    /// A list of numbers and strings.
    List(Vec<Value>),
    /// A section.
    Section(Section),
}

/// Names with their values, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    entries: Vec<(String, Value)>,
}

/// Where a text stops being one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// Bytes from the beginning of the text.
    pub at: usize,
    /// What should have been there.
    pub wanted: &'static str,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the text is not {}", self.at, self.wanted)
    }
}

impl Section {
    /// Reads a text up to its end or the first NUL byte. Memory is bounded by a small multiple of its length.
    ///
    /// # Errors
    /// Where it stops following the grammar.
    pub fn parse(text: &[u8]) -> Result<Self, TextError> {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let mut parser = Parser { text: &text[..end], at: 0 };
        let section = parser.section(0)?;
        if parser.at < end { Err(parser.error("a name, or the end")) } else { Ok(section) }
    }

    /// All names and their values.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The section of this name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        match self.get(name)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    /// All sections in it, with their names.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.entries().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name, section)),
            _ => None,
        })
    }

    /// The string of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number of this name, unless it is negative.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The list of this name.
    pub fn list(&self, name: &str) -> Option<&[Value]> {
        match self.get(name)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The strings of the list of this name; none if there is no such list.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).unwrap_or_default().iter().filter_map(|value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn error(&self, wanted: &'static str) -> TextError {
        TextError { at: self.at, wanted }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next byte that is neither space nor part of a comment.
    fn next(&mut self) -> Option<u8> {
        while let Some(byte) = self.peek() {
            match byte {
                b'#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                }
                _ if byte.is_ascii_whitespace() => self.at += 1,
                _ => return Some(byte),
            }
        }
        None
    }

    /// Takes the bytes that fit, at least one.
    fn word(&mut self, fits: fn(u8) -> bool, wanted: &'static str) -> Result<&str, TextError> {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| !fits(*byte)).unwrap_or(rest.len());
        let word = std::str::from_utf8(&rest[..length]).ok().filter(|_| (1..=NAME_MAX).contains(&length));
        let word = word.ok_or(TextError { at: self.at, wanted })?;
        self.at += length;
        Ok(word)
    }

    /// The inside of a section, up to its closing brace (which is left) or to the end of the text.
    fn section(&mut self, depth: usize) -> Result<Section, TextError> {
        let mut section = Section::default();
        if depth > DEPTH_MAX {
            return Err(self.error("at most 16 sections deep"));
        }
        while let Some(byte) = self.next() {
            if byte == b'}' {
                break;
            }
            let name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.+/".contains(&byte);
            let name = self.word(name, "a name")?.to_owned();
            let value = match self.next() {
                Some(b'{') => {
                    self.at += 1;
                    let inside = self.section(depth + 1)?;
                    if self.peek() != Some(b'}') {
                        return Err(self.error("a closing brace"));
                    }
                    self.at += 1;
                    Value::Section(inside)
                }
                Some(b'=') => {
                    self.at += 1;
                    self.value()?
                }
                _ => return Err(self.error("'{' or '='")),
            };
            section.entries.push((name, value));
        }
        Ok(section)
    }

    fn value(&mut self) -> Result<Value, TextError> {
        if self.next() != Some(b'[') {
            return self.scalar();
        }
        self.at += 1;
        let mut list = Vec::new();
        loop {
            match self.next() {
                Some(b']') => break,
                Some(b',') if !list.is_empty() => self.at += 1,
                _ if list.is_empty() => {}
                _ => return Err(self.error("',' or ']'")),
            }
            list.push(self.scalar()?);
        }
        self.at += 1;
        Ok(Value::List(list))
    }

    fn scalar(&mut self) -> Result<Value, TextError> {
        match self.next() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'+' | b'-' | b'0'..=b'9') => {
                let at = self.at;
                let word = self.word(|byte| b"+-.".contains(&byte) || byte.is_ascii_digit(), "a number")?;
                let whole = word.split('.').next().unwrap_or_default();
                whole.parse().map(Value::Number).map_err(|_| TextError { at, wanted: "a number" })
            }
            _ => Err(self.error("a number or a string")),
        }
    }

    fn string(&mut self) -> Result<String, TextError> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.peek() {
                None => return Err(self.error("the end of a string")),
                Some(b'"') => break,
                Some(b'\\') => {
                    // Only quotes and backslashes are ever escaped.
                    self.at += 1;
                    bytes.extend(self.peek());
                }
                Some(byte) => bytes.push(byte),
            }
            self.at += 1;
        }
        self.at += 1;
        String::from_utf8(bytes).map_err(|_| self.error("UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Section, Value};

    #[test]
    fn everything_in_one_text() {
        let text = br##"
# made by hand
vg-0.a+b { # a comment
	id = "q\"uo\\te"
	seqno = 7
	size = -3
	real = 1.5
	empty = []
	list = ["pv0", 0, "pv1" , 12]
	inner { deeper { x = "#{}[]" } }
}
description = ""
"##;
        let root = Section::parse(text).expect("it follows the grammar");
        let group = root.section("vg-0.a+b").expect("it is there");
        assert_eq!(group.text("id"), Some("q\"uo\\te"));
        assert_eq!((group.number("seqno"), group.number("size")), (Some(7), None));
        assert_eq!(group.get("real"), Some(&Value::Number(1)));
        assert_eq!(group.list("empty"), Some(&[][..]));
        assert_eq!(group.texts("list").collect::<Vec<_>>(), ["pv0", "pv1"]);
        let deeper = group.section("inner").and_then(|inner| inner.section("deeper")).expect("two sections");
        assert_eq!(deeper.text("x"), Some("#{}[]"));
        assert_eq!(root.text("description"), Some(""));
    }

    #[test]
    fn faults_are_placed() {
        let at = |text: &[u8]| Section::parse(text).expect_err("it is wrong").at;
        assert_eq!(at(b"a = "), 4);
        assert_eq!(at(b"a {"), 3);
        assert_eq!(at(b"a }"), 2);
        assert_eq!(at(b"}"), 0);
        assert_eq!(at(b"a = [1 2]"), 7);
        assert_eq!(at(b"a = [,]"), 5);
        assert_eq!(at(b"a = \"x"), 6);
        assert_eq!(at(b"a = 99999999999999999999"), 4);
        let deep = [b"a{".repeat(1 << 16), b"}".repeat(1 << 16)].concat();
        assert!(at(&deep) < 64, "the depth is bounded");
    }
}
