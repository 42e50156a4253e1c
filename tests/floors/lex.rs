//! Turns Rust source into the few tokens that the floor rules need.
//!
//! A full parser would be a dependency with opinions; the rules only ask which paths a file mentions.
//! So comments, strings and literals are dropped (prose may point upward, code may not), what stands
//! under `#[cfg(test)]` is cut out, and every other token is kept with its line.

/// One token and the line (from 1) where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// What is left of a file when comments, literals and test code are gone.
pub(crate) struct Lexed {
    pub(crate) tokens: Vec<Token>,
    /// Lines that only tests use; they do not count towards a file's size.
    pub(crate) test_lines: usize,
    /// Modules declared as `#[cfg(test)] mod name;`: their files are tests.
    pub(crate) test_modules: Vec<String>,
}

pub(crate) fn lex(source: &str) -> Lexed {
    without_tests(&tokens(source))
}

/// All tokens: identifiers, `::` as one token, every other punctuation mark as its own.
fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let mut out = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let start = at;
        let c = text[at];
        if c.is_whitespace() {
            at += 1;
        } else if c == '/' && text.get(at + 1) == Some(&'/') {
            while at < text.len() && text[at] != '\n' {
                at += 1;
            }
        } else if c == '/' && text.get(at + 1) == Some(&'*') {
            at = skip_block_comment(&text, at);
        } else if let Some(end) = skip_string(&text, at) {
            at = end;
        } else if c == '\'' {
            at = skip_char_or_lifetime(&text, at);
        } else if c.is_alphanumeric() || c == '_' {
            while at < text.len() && (text[at].is_alphanumeric() || text[at] == '_') {
                at += 1;
            }
            if !c.is_numeric() {
                out.push(Token {
                    text: text[start..at].iter().collect(),
                    line,
                });
            }
        } else if c == ':' && text.get(at + 1) == Some(&':') {
            at += 2;
            out.push(Token {
                text: "::".into(),
                line,
            });
        } else {
            at += 1;
            out.push(Token {
                text: c.into(),
                line,
            });
        }
        line += text[start..at].iter().filter(|&&c| c == '\n').count();
    }
    out
}

fn skip_block_comment(text: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The end of a string literal that starts here (plain, raw, byte or C), or `None`.
fn skip_string(text: &[char], at: usize) -> Option<usize> {
    let mut from = at;
    while from < at + 2 && matches!(text.get(from), Some('b' | 'c' | 'r')) {
        from += 1;
    }
    let raw = from > at && text[from - 1] == 'r';
    let hashes = text[from..].iter().take_while(|&&c| c == '#').count();
    if raw && text.get(from + hashes) == Some(&'"') {
        let mut end = from + hashes + 1;
        while end < text.len() {
            if text[end] == '"'
                && text[end + 1..].iter().take_while(|&&c| c == '#').count() >= hashes
            {
                return Some(end + 1 + hashes);
            }
            end += 1;
        }
        return Some(end);
    }
    if text.get(from) != Some(&'"') {
        return None;
    }
    let mut end = from + 1;
    while end < text.len() && text[end] != '"' {
        end += if text[end] == '\\' { 2 } else { 1 };
    }
    Some((end + 1).min(text.len()))
}

/// `'a'` and `'\n'` are literals, `'a` is a lifetime; neither is wanted.
fn skip_char_or_lifetime(text: &[char], at: usize) -> usize {
    if text.get(at + 1) == Some(&'\\') {
        let mut end = at + 3;
        while end < text.len() && text[end] != '\'' {
            end += 1;
        }
        return (end + 1).min(text.len());
    }
    if text.get(at + 2) == Some(&'\'') {
        return at + 3;
    }
    let mut end = at + 1;
    while end < text.len() && (text[end].is_alphanumeric() || text[end] == '_') {
        end += 1;
    }
    end
}

const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// Cuts out each item under `#[cfg(test)]`: up to its `;`, or to the end of its braces.
fn without_tests(all: &[Token]) -> Lexed {
    let mut lexed = Lexed {
        tokens: Vec::new(),
        test_lines: 0,
        test_modules: Vec::new(),
    };
    let mut at = 0;
    while at < all.len() {
        let here = all[at..]
            .iter()
            .map(|t| t.text.as_str())
            .take(CFG_TEST.len());
        if !here.eq(CFG_TEST) {
            lexed.tokens.push(all[at].clone());
            at += 1;
            continue;
        }
        let first = all[at].line;
        at += CFG_TEST.len();
        let item = at;
        let mut depth = 0_usize;
        while at < all.len() {
            match all[at].text.as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
            let last = all[at - 1].text.as_str();
            if depth == 0 && (last == ";" || last == "}") {
                break;
            }
        }
        let words: Vec<&str> = all[item..at].iter().map(|t| t.text.as_str()).collect();
        if let Some(found) = words.iter().position(|&w| w == "mod")
            && words.get(found + 2) == Some(&";")
        {
            lexed.test_modules.push(words[found + 1].to_owned());
        }
        lexed.test_lines += all[at - 1].line - first + 1;
    }
    lexed
}

#[cfg(test)]
mod tests {
    use super::lex;

    fn words(source: &str) -> Vec<String> {
        lex(source).tokens.into_iter().map(|t| t.text).collect()
    }

    #[test]
    fn comments_and_literals_are_dropped() {
        let source =
            "a /* b /* c */ d */ // e\n r#\"f \" g\"# \"h \\\" i\" 'j' '\\'' b\"k\" l::m<'n> 0x1f";
        assert_eq!(words(source), ["a", "l", "::", "m", "<", ">"]);
    }

    #[test]
    fn an_identifier_that_starts_like_a_string_prefix_is_kept() {
        assert_eq!(
            words("br b crate r#type"),
            ["br", "b", "crate", "r", "#", "type"]
        );
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let tokens = lex("/* \n */ \"\n\"\n x").tokens;
        assert_eq!((tokens[0].text.as_str(), tokens[0].line), ("x", 4));
    }

    #[test]
    fn test_code_is_cut_out() {
        let lexed = lex("use a;\n#[cfg(test)]\nmod t {\n use b;\n}\n#[cfg(test)]\nmod u;\nuse c;");
        let words: Vec<&str> = lexed.tokens.iter().map(|t| t.text.as_str()).collect();
        assert_eq!(words, ["use", "a", ";", "use", "c", ";"]);
        assert_eq!(lexed.test_lines, 6);
        assert_eq!(lexed.test_modules, ["u"]);
    }

    #[test]
    fn what_is_for_tests_and_others_is_kept() {
        assert!(
            words("#[cfg(any(test, feature = \"x\"))] mod kit { use up; }").contains(&"up".into())
        );
    }
}
