//! LVM's configuration text: sections in braces, values after `=`, comments after `#`.

/// Deepest nesting of sections; real metadata has four.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    List(Vec<Self>),
}

/// A section: its values and the sections in it, both in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) values: Vec<(String, Value)>,
    pub(super) sections: Vec<(String, Self)>,
}

impl Section {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut tokens = Tokens { rest: text };
        let section = body(&mut tokens, 0)?;
        tokens.next().is_none().then_some(section)
    }

    pub(super) fn section(&self, name: &str) -> Option<&Self> {
        self.sections.iter().find(|(own, _)| own == name).map(|(_, section)| section)
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> Option<&[Value]> {
        match self.value(name)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }
}

enum Token {
    Word(String),
    Quoted(String),
    Mark(char),
}

struct Tokens<'a> {
    rest: &'a str,
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest),
                None => break,
            }
        }
        let first = self.rest.chars().next()?;
        if first == '"' {
            let mut text = String::new();
            let mut chars = self.rest.char_indices().skip(1);
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        self.rest = &self.rest[at + 1..];
                        return Some(Token::Quoted(text));
                    }
                    '\\' => text.extend(chars.next().map(|(_, c)| c)),
                    c => text.push(c),
                }
            }
            self.rest = "";
            return None;
        }
        if "{}[]=,".contains(first) {
            self.rest = &self.rest[1..];
            return Some(Token::Mark(first));
        }
        let end = self.rest.find(|c: char| c.is_whitespace() || "{}[]=,#\"".contains(c));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        Some(Token::Word(word.to_owned()))
    }
}

/// What is within a section, up to its closing brace or the end of the text.
fn body(tokens: &mut Tokens<'_>, depth: usize) -> Option<Section> {
    let mut section = Section::default();
    loop {
        let name = match tokens.next() {
            Some(Token::Word(name)) => name,
            Some(Token::Mark('}')) if depth > 0 => return Some(section),
            None if depth == 0 => return Some(section),
            _ => return None,
        };
        match tokens.next()? {
            Token::Mark('{') if depth < DEPTH_MAX => section.sections.push((name, body(tokens, depth + 1)?)),
            Token::Mark('=') => {
                let first = tokens.next()?;
                let value = match first {
                    Token::Mark('[') => list(tokens)?,
                    other => single(other)?,
                };
                section.values.push((name, value));
            }
            _ => return None,
        }
    }
}

fn list(tokens: &mut Tokens<'_>) -> Option<Value> {
    let mut values = Vec::new();
    loop {
        match tokens.next()? {
            Token::Mark(']') => return Some(Value::List(values)),
            Token::Mark(',') => {}
            other => values.push(single(other)?),
        }
    }
}

fn single(token: Token) -> Option<Value> {
    match token {
        Token::Quoted(text) => Some(Value::Text(text)),
        Token::Word(word) => {
            let whole = word.split('.').next().unwrap_or_default();
            whole.parse().ok().map(Value::Number)
        }
        Token::Mark(_) => None,
    }
}
