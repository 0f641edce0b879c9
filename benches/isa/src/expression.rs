//! Constants and index formulas of a shader's text.

use std::collections::BTreeMap;

pub type Names = BTreeMap<String, u32>;

struct Expression<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    names: &'a Names,
}

/// Operators by how strongly they bind, the weakest first.
const OPERATORS: [&[&str]; 6] = [&["|"], &["^"], &["&"], &["<<", ">>"], &["+", "-"], &["*", "/", "%"]];

/// The value of an expression of WGSL over u32; `None` for any other.
pub fn value(text: &str, names: &Names) -> Option<u32> {
    let mut tokens = vec![];
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match first {
            _ if word > 0 => word,
            '<' | '>' => 2,
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length)?;
        tokens.push(token);
        rest = after.trim_start();
    }
    let mut expression = Expression { tokens, at: 0, names };
    let value = expression.level(0)?;
    (expression.at == expression.tokens.len()).then_some(value)
}

impl Expression<'_> {
    fn level(&mut self, level: usize) -> Option<u32> {
        let Some(operators) = OPERATORS.get(level) else { return self.term() };
        let mut left = self.level(level + 1)?;
        while let Some(operator) = self.tokens.get(self.at).filter(|token| operators.contains(token)).copied() {
            self.at += 1;
            let right = self.level(level + 1)?;
            left = match operator {
                "|" => left | right,
                "^" => left ^ right,
                "&" => left & right,
                "<<" => left.checked_shl(right)?,
                ">>" => left.checked_shr(right)?,
                "+" => left.wrapping_add(right),
                "-" => left.wrapping_sub(right),
                "*" => left.wrapping_mul(right),
                "/" => left.checked_div(right)?,
                _ => left.checked_rem(right)?,
            };
        }
        Some(left)
    }

    fn term(&mut self) -> Option<u32> {
        let token = *self.tokens.get(self.at)?;
        self.at += 1;
        if token == "(" {
            let value = self.level(0)?;
            self.at += 1;
            return (self.tokens.get(self.at - 1) == Some(&")")).then_some(value);
        }
        let number = token.strip_suffix('u').unwrap_or(token);
        match number.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => number.parse().ok().or_else(|| self.names.get(token).copied()),
        }
    }
}

/// Adds the names that the text gives to values which can be computed, in order: `const NAME = ..;` or `let NAME = ..;`.
pub fn define(text: &str, keyword: &str, names: &mut Names) {
    for line in text.split(keyword).skip(1) {
        let Some((name, rest)) = line.split_once('=') else { continue };
        let Some(value) = rest.split_once(';').and_then(|(text, _)| value(text, names)) else { continue };
        names.insert(name.split(':').next().unwrap_or(name).trim().to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_have_the_precedence_of_wgsl() {
        let names = Names::from([("lane".to_owned(), 13), ("SIDE".to_owned(), 8)]);
        for (text, expected) in [
            ("lane % SIDE", Some(5)),
            ("2u * SIDE + 1u", Some(17)),
            ("(lane & 1u) | ((lane >> 1u) & 6u)", Some(7)),
            ("lane / SIDE * 4u", Some(4)),
            ("0x10u - lane", Some(3)),
            ("held(lane)", None),
            ("lane < 64u", None),
            ("unknown", None),
        ] {
            assert_eq!(value(text, &names), expected, "{text}");
        }
    }
}
