//! Small expressions over named values: constraints between axes, gates and objectives over metrics.
//!
//! Numbers, `"text"`, `true`, `false`, `null`, names with dots; `+ - * /`, `< <= > >= == !=`, `and or not`,
//! parentheses; `abs(x)`, `sqrt(x)`, `log(x)` (natural), `min(x, …)`, `max(x, …)`. From loose to tight: `or`, `and`, `not`,
//! comparison (does not chain), `+ -`, `* /`, unary `-`.
//!
//! **Undefined.** A name may have no value, and a result that is not finite has none. Arithmetic with undefined is
//! undefined; a comparison with undefined is undefined and counts as false at the end. `not`, `and`, `or` follow
//! Kleene's three-valued logic, so that `not (x > 1)` with an undefined `x` does not hold either: an undefined metric
//! passes no gate, however the gate is worded. `x == null` and `x != null` ask whether `x` is undefined.

use engine::error::nearest;

/// Deepest nesting of an expression, and longest chain of operators on one level.
const MAX_DEPTH: usize = 100;
/// Longest text in bytes; with the depth it bounds the recursion of evaluation.
const MAX_LEN: usize = 2000;

/// A value while an expression is evaluated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Datum<'a> {
    /// No value.
    Undefined,
    /// A finite number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(&'a str),
}

impl Datum<'_> {
    /// A number, undefined if it is not finite.
    pub fn number(value: f64) -> Self {
        if value.is_finite() { Self::Number(value) } else { Self::Undefined }
    }

    /// The number, if it is one.
    pub fn as_number(self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(value),
            _ => None,
        }
    }
}

/// What a name or an expression yields, as far as it is known before evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Numbers.
    Number,
    /// Truth values.
    Bool,
    /// Text.
    Text,
    /// Several kinds, or unknown.
    Any,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Bool => "true/false",
            Self::Text => "text",
            Self::Any => "a value",
        }
    }

    fn fits(self, wanted: Self) -> bool {
        self == wanted || self == Self::Any || wanted == Self::Any
    }
}

/// Why a text is no valid expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// First byte of the culprit within the expression.
    pub offset: usize,
    /// Its length in bytes.
    pub len: usize,
    /// The rule and what was found.
    pub message: String,
    /// A remedy.
    pub hint: Option<String>,
}

/// A parsed expression. Names are numbered in order of first appearance.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    text: String,
    root: Node,
    names: Vec<String>,
    result: Type,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Bool(bool),
    Text(String),
    Null,
    Name(usize),
    Negate(Box<Node>),
    Not(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    IsNull { operand: Box<Node>, negated: bool },
    Call(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    /// Binding power: a higher one binds tighter.
    fn power(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Less | Self::LessEqual | Self::Greater | Self::GreaterEqual | Self::Equal | Self::NotEqual => 4,
            Self::Add | Self::Subtract => 5,
            Self::Multiply | Self::Divide => 6,
        }
    }

    fn is_comparison(self) -> bool {
        self.power() == 4
    }
}

/// Power of `not`: looser than a comparison, tighter than `and`.
const POWER_NOT: u8 = 3;
/// Power of the unary minus.
const POWER_NEGATE: u8 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Abs,
    Sqrt,
    Log,
    Min,
    Max,
}

const FUNCTIONS: [(&str, Function); 5] = [
    ("abs", Function::Abs),
    ("sqrt", Function::Sqrt),
    ("log", Function::Log),
    ("min", Function::Min),
    ("max", Function::Max),
];

/// Answers what a name stands for: its type, or a remedy when there is no such name.
pub type Resolver<'a> = dyn Fn(&str) -> Result<Type, Option<String>> + 'a;

impl Expression {
    /// Parses `text`; `resolve` decides which names exist, `what` says in messages what a name is (`metric`, `axis`).
    ///
    /// # Errors
    /// The first thing wrong and where.
    pub fn parse(text: &str, what: &str, resolve: &Resolver<'_>) -> Result<Self, ExpressionError> {
        if text.len() > MAX_LEN {
            return Err(ExpressionError {
                offset: 0,
                len: 1,
                message: format!("an expression has at most {MAX_LEN} characters, this one {}", text.len()),
                hint: None,
            });
        }
        let tokens = tokenize(text)?;
        let mut parser = Parser { tokens, position: 0, end: text.len(), names: Vec::new(), what, resolve, depth: 0 };
        let (root, result) = parser.expression(0)?;
        match parser.peek() {
            None => Ok(Self { text: text.trim().to_owned(), root, names: parser.names, result }),
            Some(token) => Err(token.error(format!("expected an operator or the end, found `{}`", token.text(text)))),
        }
    }

    /// The text it was read from, trimmed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names it reads, by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What it yields.
    pub fn result_type(&self) -> Type {
        self.result
    }

    /// Its value, given the value of each name by number.
    pub fn evaluate<'a>(&'a self, lookup: &dyn Fn(usize) -> Datum<'a>) -> Datum<'a> {
        evaluate(&self.root, lookup)
    }

    /// It is true; undefined counts as false.
    pub fn holds<'a>(&'a self, lookup: &dyn Fn(usize) -> Datum<'a>) -> bool {
        self.evaluate(lookup) == Datum::Bool(true)
    }
}

fn evaluate<'a>(node: &'a Node, lookup: &dyn Fn(usize) -> Datum<'a>) -> Datum<'a> {
    match node {
        Node::Number(value) => Datum::number(*value),
        Node::Bool(value) => Datum::Bool(*value),
        Node::Text(text) => Datum::Text(text),
        Node::Null => Datum::Undefined,
        Node::Name(number) => lookup(*number),
        Node::Negate(operand) => arithmetic(evaluate(operand, lookup), Datum::Number(0.0), |x, _| -x),
        Node::Not(operand) => match evaluate(operand, lookup) {
            Datum::Bool(value) => Datum::Bool(!value),
            _ => Datum::Undefined,
        },
        Node::IsNull { operand, negated } => Datum::Bool((evaluate(operand, lookup) == Datum::Undefined) != *negated),
        Node::Binary(operator, left, right) => binary(*operator, left, right, lookup),
        Node::Call(function, arguments) => call(*function, arguments, lookup),
    }
}

fn binary<'a>(operator: Operator, left: &'a Node, right: &'a Node, lookup: &dyn Fn(usize) -> Datum<'a>) -> Datum<'a> {
    let left = evaluate(left, lookup);
    match (operator, left) {
        (Operator::And, Datum::Bool(false)) => return Datum::Bool(false),
        (Operator::Or, Datum::Bool(true)) => return Datum::Bool(true),
        _ => {}
    }
    let right = evaluate(right, lookup);
    match operator {
        Operator::And => match (left, right) {
            (_, Datum::Bool(false)) => Datum::Bool(false),
            (Datum::Bool(true), Datum::Bool(true)) => Datum::Bool(true),
            _ => Datum::Undefined,
        },
        Operator::Or => match (left, right) {
            (_, Datum::Bool(true)) => Datum::Bool(true),
            (Datum::Bool(false), Datum::Bool(false)) => Datum::Bool(false),
            _ => Datum::Undefined,
        },
        Operator::Add => arithmetic(left, right, |x, y| x + y),
        Operator::Subtract => arithmetic(left, right, |x, y| x - y),
        Operator::Multiply => arithmetic(left, right, |x, y| x * y),
        Operator::Divide => arithmetic(left, right, |x, y| x / y),
        Operator::Equal => equal(left, right, false),
        Operator::NotEqual => equal(left, right, true),
        Operator::Less => ordered(left, right, |x, y| x < y),
        Operator::LessEqual => ordered(left, right, |x, y| x <= y),
        Operator::Greater => ordered(left, right, |x, y| x > y),
        Operator::GreaterEqual => ordered(left, right, |x, y| x >= y),
    }
}

fn arithmetic<'a>(left: Datum<'a>, right: Datum<'a>, apply: impl Fn(f64, f64) -> f64) -> Datum<'a> {
    match (left, right) {
        (Datum::Number(x), Datum::Number(y)) => Datum::number(apply(x, y)),
        _ => Datum::Undefined,
    }
}

fn ordered<'a>(left: Datum<'a>, right: Datum<'a>, apply: impl Fn(f64, f64) -> bool) -> Datum<'a> {
    match (left, right) {
        (Datum::Number(x), Datum::Number(y)) => Datum::Bool(apply(x, y)),
        _ => Datum::Undefined,
    }
}

/// Values of different kinds are different; undefined is comparable with nothing.
fn equal<'a>(left: Datum<'a>, right: Datum<'a>, negated: bool) -> Datum<'a> {
    match (left, right) {
        (Datum::Undefined, _) | (_, Datum::Undefined) => Datum::Undefined,
        (left, right) => Datum::Bool((left == right) != negated),
    }
}

fn call<'a>(function: Function, arguments: &'a [Node], lookup: &dyn Fn(usize) -> Datum<'a>) -> Datum<'a> {
    let mut values = arguments.iter().map(|argument| evaluate(argument, lookup));
    let Some(first) = values.next() else { return Datum::Undefined };
    match function {
        Function::Abs => arithmetic(first, Datum::Number(0.0), |x, _| x.abs()),
        Function::Sqrt => arithmetic(first, Datum::Number(0.0), |x, _| x.sqrt()),
        Function::Log => arithmetic(first, Datum::Number(0.0), |x, _| libm::log(x)),
        Function::Min => values.fold(first, |a, b| arithmetic(a, b, f64::min)),
        Function::Max => values.fold(first, |a, b| arithmetic(a, b, f64::max)),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum TokenKind {
    Number(f64),
    Text(String),
    Word(String),
    Operator(Operator),
    Open,
    Close,
    Comma,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    kind: TokenKind,
    offset: usize,
    len: usize,
}

impl Token {
    fn error(&self, message: String) -> ExpressionError {
        ExpressionError { offset: self.offset, len: self.len, message, hint: None }
    }

    fn text<'a>(&self, source: &'a str) -> &'a str {
        source.get(self.offset..self.offset + self.len).unwrap_or_default()
    }
}

fn tokenize(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut offset = 0;
    while let Some(first) = text[offset..].chars().next() {
        let rest = &text[offset..];
        if first.is_whitespace() {
            offset += first.len_utf8();
            continue;
        }
        let (kind, len) = token(rest, first).map_err(|(len, message, hint)| ExpressionError {
            offset,
            len,
            message,
            hint: hint.map(str::to_owned),
        })?;
        tokens.push(Token { kind, offset, len });
        offset += len;
    }
    Ok(tokens)
}

type TokenFault = (usize, String, Option<&'static str>);

fn token(rest: &str, first: char) -> Result<(TokenKind, usize), TokenFault> {
    const SYMBOLS: [(&str, TokenKind); 13] = [
        ("<=", TokenKind::Operator(Operator::LessEqual)),
        (">=", TokenKind::Operator(Operator::GreaterEqual)),
        ("==", TokenKind::Operator(Operator::Equal)),
        ("!=", TokenKind::Operator(Operator::NotEqual)),
        ("<", TokenKind::Operator(Operator::Less)),
        (">", TokenKind::Operator(Operator::Greater)),
        ("+", TokenKind::Operator(Operator::Add)),
        ("-", TokenKind::Operator(Operator::Subtract)),
        ("*", TokenKind::Operator(Operator::Multiply)),
        ("/", TokenKind::Operator(Operator::Divide)),
        ("(", TokenKind::Open),
        (")", TokenKind::Close),
        (",", TokenKind::Comma),
    ];
    if let Some((symbol, kind)) = SYMBOLS.into_iter().find(|(symbol, _)| rest.starts_with(symbol)) {
        return Ok((kind, symbol.len()));
    }
    if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
        return number(rest);
    }
    if first.is_alphabetic() || first == '_' {
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
        let word = rest[..len].trim_end_matches('.');
        return Ok((word_kind(word), word.len()));
    }
    if first == '"' || first == '\'' {
        return match rest[1..].find(first) {
            Some(len) => Ok((TokenKind::Text(rest[1..=len].to_owned()), len + 2)),
            None => Err((rest.len(), "the quoted text has no end".to_owned(), None)),
        };
    }
    let hint = match first {
        '=' => Some("equality is written `==`"),
        '&' => Some("write `and`"),
        '|' => Some("write `or`"),
        '!' => Some("write `not`, or `!=` for inequality"),
        '^' => Some("there is no power; multiply"),
        _ => None,
    };
    Err((first.len_utf8(), format!("`{first}` has no meaning here"), hint))
}

fn number(rest: &str) -> Result<(TokenKind, usize), TokenFault> {
    let digits = |from: usize| rest[from..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |len| from + len);
    let mut len = digits(0);
    if rest[len..].starts_with('.') {
        len = digits(len + 1);
    }
    if rest[len..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
        let end = digits(len + 1 + sign);
        if end > len + 1 + sign {
            len = end;
        }
    }
    match rest[..len].parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((TokenKind::Number(value), len)),
        _ => Err((len, format!("`{}` is no number", &rest[..len]), None)),
    }
}

fn word_kind(word: &str) -> TokenKind {
    match word {
        "and" => TokenKind::Operator(Operator::And),
        "or" => TokenKind::Operator(Operator::Or),
        _ => TokenKind::Word(word.to_owned()),
    }
}

struct Parser<'a> {
    tokens: Vec<Token>,
    position: usize,
    end: usize,
    names: Vec<String>,
    what: &'a str,
    resolve: &'a Resolver<'a>,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position)
    }

    fn at_end(&self, expected: &str) -> ExpressionError {
        ExpressionError {
            offset: self.end,
            len: 0,
            message: format!("the expression ends where {expected} is expected"),
            hint: None,
        }
    }

    fn next(&mut self, expected: &str) -> Result<Token, ExpressionError> {
        let token = self.peek().cloned().ok_or_else(|| self.at_end(expected))?;
        self.position += 1;
        Ok(token)
    }

    /// Pratt's loop: an operand, then every operator that binds tighter than `power`.
    fn expression(&mut self, power: u8) -> Result<(Node, Type), ExpressionError> {
        let (mut left, mut left_type) = self.operand()?;
        let mut links = 0;
        while let Some(Token { kind: TokenKind::Operator(operator), .. }) = self.peek() {
            let operator = *operator;
            if operator.power() <= power {
                break;
            }
            let token = self.next("an operator")?;
            links += 1;
            if self.depth + links > MAX_DEPTH {
                return Err(token.error("the expression is too long".to_owned()));
            }
            let (right, right_type) = self.expression(operator.power())?;
            let chained = operator.is_comparison()
                && matches!(self.peek(), Some(Token { kind: TokenKind::Operator(next), .. }) if next.is_comparison());
            if chained {
                let mut error = token.error("comparisons do not chain".to_owned());
                error.hint = Some("write `a < b and b < c`".to_owned());
                return Err(error);
            }
            left_type = check_types(operator, &token, (&left, left_type), (&right, right_type))?;
            left = join(operator, left, right);
        }
        Ok((left, left_type))
    }

    fn operand(&mut self) -> Result<(Node, Type), ExpressionError> {
        let token = self.next("a value")?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(token.error("the expression is nested too deep".to_owned()));
        }
        let result = match &token.kind {
            TokenKind::Number(value) => Ok((Node::Number(*value), Type::Number)),
            TokenKind::Text(text) => Ok((Node::Text(text.clone()), Type::Text)),
            TokenKind::Operator(Operator::Subtract) => {
                let (operand, kind) = self.expression(POWER_NEGATE)?;
                expect_type(&token, "`-`", kind, Type::Number)?;
                Ok((Node::Negate(Box::new(operand)), Type::Number))
            }
            TokenKind::Open => {
                let inner = self.expression(0)?;
                self.close()?;
                Ok(inner)
            }
            TokenKind::Word(word) => self.word(&token, word),
            TokenKind::Operator(_) | TokenKind::Close | TokenKind::Comma => {
                Err(token.error("expected a value here".to_owned()))
            }
        };
        self.depth -= 1;
        result
    }

    fn close(&mut self) -> Result<(), ExpressionError> {
        let token = self.next("`)`")?;
        if token.kind == TokenKind::Close { Ok(()) } else { Err(token.error("expected `)` here".to_owned())) }
    }

    fn word(&mut self, token: &Token, word: &str) -> Result<(Node, Type), ExpressionError> {
        match word {
            "true" => return Ok((Node::Bool(true), Type::Bool)),
            "false" => return Ok((Node::Bool(false), Type::Bool)),
            "null" => return Ok((Node::Null, Type::Any)),
            "not" => {
                let (operand, kind) = self.expression(POWER_NOT)?;
                expect_type(token, "`not`", kind, Type::Bool)?;
                return Ok((Node::Not(Box::new(operand)), Type::Bool));
            }
            _ => {}
        }
        if matches!(self.peek(), Some(Token { kind: TokenKind::Open, .. })) {
            return self.function(token, word);
        }
        let kind = (self.resolve)(word).map_err(|hint| ExpressionError {
            offset: token.offset,
            len: token.len,
            message: format!("unknown {} `{word}`", self.what),
            hint,
        })?;
        let number = self.names.iter().position(|name| name == word).unwrap_or_else(|| {
            self.names.push(word.to_owned());
            self.names.len() - 1
        });
        Ok((Node::Name(number), kind))
    }

    fn function(&mut self, token: &Token, word: &str) -> Result<(Node, Type), ExpressionError> {
        let Some((_, function)) = FUNCTIONS.into_iter().find(|(name, _)| *name == word) else {
            let known = FUNCTIONS.map(|(name, _)| name);
            let mut error = token.error(format!("unknown function `{word}`; there are {}", known.join(", ")));
            error.hint = nearest(word, known).map(|name| format!("did you mean `{name}`?"));
            return Err(error);
        };
        self.next("`(`")?;
        let mut arguments = Vec::new();
        loop {
            let start = self.peek().cloned();
            let (argument, kind) = self.expression(0)?;
            expect_type(start.as_ref().unwrap_or(token), &format!("`{word}`"), kind, Type::Number)?;
            arguments.push(argument);
            let next = self.next("`,` or `)`")?;
            match next.kind {
                TokenKind::Comma => {}
                TokenKind::Close => break,
                _ => return Err(next.error("expected `,` or `)` here".to_owned())),
            }
        }
        let several = matches!(function, Function::Min | Function::Max);
        if several && arguments.len() < 2 {
            return Err(token.error(format!("`{word}` takes two values or more, found 1")));
        }
        if !several && arguments.len() != 1 {
            return Err(token.error(format!("`{word}` takes one value, found {}", arguments.len())));
        }
        Ok((Node::Call(function, arguments), Type::Number))
    }
}

fn join(operator: Operator, left: Node, right: Node) -> Node {
    let negated = operator == Operator::NotEqual;
    match (operator, left, right) {
        (Operator::Equal | Operator::NotEqual, operand, Node::Null)
        | (Operator::Equal | Operator::NotEqual, Node::Null, operand) => {
            Node::IsNull { operand: Box::new(operand), negated }
        }
        (operator, left, right) => Node::Binary(operator, Box::new(left), Box::new(right)),
    }
}

fn expect_type(token: &Token, what: &str, found: Type, wanted: Type) -> Result<(), ExpressionError> {
    if found.fits(wanted) {
        Ok(())
    } else {
        Err(token.error(format!("{what} needs {}, found {}", wanted.as_str(), found.as_str())))
    }
}

fn check_types(
    operator: Operator,
    token: &Token,
    left: (&Node, Type),
    right: (&Node, Type),
) -> Result<Type, ExpressionError> {
    let name = match operator {
        Operator::Or => "`or`",
        Operator::And => "`and`",
        _ if operator.is_comparison() => "the comparison",
        _ => "arithmetic",
    };
    let wanted = match operator {
        Operator::Or | Operator::And => Type::Bool,
        Operator::Equal | Operator::NotEqual => {
            return if left.1.fits(right.1) {
                Ok(Type::Bool)
            } else {
                Err(token.error(format!("{} is compared with {}", left.1.as_str(), right.1.as_str())))
            };
        }
        _ => Type::Number,
    };
    if matches!(left.0, Node::Null) || matches!(right.0, Node::Null) {
        let mut error = token.error("`null` can only be compared by `==` and `!=`".to_owned());
        error.hint = Some("`x != null` asks whether x is defined".to_owned());
        return Err(error);
    }
    expect_type(token, name, left.1, wanted)?;
    expect_type(token, name, right.1, wanted)?;
    Ok(if operator.is_comparison() || wanted == Type::Bool { Type::Bool } else { Type::Number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(name: &str) -> Result<Type, Option<String>> {
        match name {
            "a" | "b" | "costs.fee_multiplier" | "u" => Ok(Type::Number),
            "side" => Ok(Type::Text),
            "on" => Ok(Type::Bool),
            _ => Err(nearest(name, ["side", "costs.fee_multiplier"]).map(|name| format!("did you mean `{name}`?"))),
        }
    }

    fn value(text: &str) -> String {
        let expression = Expression::parse(text, "axis", &resolve).unwrap();
        let value = expression.evaluate(&|number| match expression.names()[number].as_str() {
            "a" => Datum::Number(2.0),
            "b" => Datum::Number(5.0),
            "costs.fee_multiplier" => Datum::Number(0.5),
            "side" => Datum::Text("above"),
            "on" => Datum::Bool(true),
            _ => Datum::Undefined,
        });
        match value {
            Datum::Undefined => "undefined".to_owned(),
            Datum::Number(x) => x.to_string(),
            Datum::Bool(x) => x.to_string(),
            Datum::Text(x) => x.to_owned(),
        }
    }

    #[test]
    fn binds_as_in_arithmetic() {
        for (text, expected) in [
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("8 - 3 - 2", "3"),
            ("8 / 4 / 2", "1"),
            ("-a * b", "-10"),
            ("--a", "2"),
            ("2 * -3", "-6"),
            ("a-1", "1"),
            ("1e2 + .5", "100.5"),
            ("a < b and not on or b == 5", "true"),
            ("not a > b and on", "true"),
            ("costs.fee_multiplier <= 0.5", "true"),
            ("side == 'above'", "true"),
            ("side != \"above\" or false", "false"),
            ("min(a, b, 1) + max(a, b) + abs(-3) + sqrt(16) + log(1)", "13"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn undefined_spreads_and_passes_nothing() {
        for (text, expected) in [
            ("u + 1", "undefined"),
            ("u > 1", "undefined"),
            ("not (u > 1)", "undefined"),
            ("u > 1 or a == 2", "true"),
            ("u > 1 and a == 3", "false"),
            ("u > 1 and a == 2", "undefined"),
            ("u == u", "undefined"),
            ("u == null", "true"),
            ("null != u", "false"),
            ("a != null", "true"),
            ("a / 0", "undefined"),
            ("sqrt(-1)", "undefined"),
            ("log(0)", "undefined"),
            ("max(u, 1)", "undefined"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        let expression = Expression::parse("u > 1", "axis", &resolve).unwrap();
        assert!(!expression.holds(&|_| Datum::Undefined));
    }

    #[test]
    fn names_are_numbered_once() {
        let expression = Expression::parse(" a + b * a ", "axis", &resolve).unwrap();
        assert_eq!((expression.text(), expression.names()), ("a + b * a", &["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(expression.result_type(), Type::Number);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let faults: Vec<String> = [
            "a <",
            "a b",
            "(a < b",
            "a = b",
            "a && b",
            "1 < a < 3",
            "sde == 'x'",
            "side < 3",
            "side == 3",
            "a and on",
            "not a",
            "-side",
            "min(a)",
            "mix(a, b)",
            "abs(a, b)",
            "a < null",
            "'abc",
            "a $ b",
            "",
        ]
        .into_iter()
        .map(|text| {
            let error = Expression::parse(text, "axis", &resolve).unwrap_err();
            let hint = error.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{text:<12} {}+{} {}{hint}", error.offset, error.len, error.message)
        })
        .collect();
        insta::assert_snapshot!(faults.join("\n"), @r##"
        a <          3+0 the expression ends where a value is expected
        a b          2+1 expected an operator or the end, found `b`
        (a < b       6+0 the expression ends where `)` is expected
        a = b        2+1 `=` has no meaning here (equality is written `==`)
        a && b       2+1 `&` has no meaning here (write `and`)
        1 < a < 3    2+1 comparisons do not chain (write `a < b and b < c`)
        sde == 'x'   0+3 unknown axis `sde` (did you mean `side`?)
        side < 3     5+1 the comparison needs a number, found text
        side == 3    5+2 text is compared with a number
        a and on     2+3 `and` needs true/false, found a number
        not a        0+3 `not` needs true/false, found a number
        -side        0+1 `-` needs a number, found text
        min(a)       0+3 `min` takes two values or more, found 1
        mix(a, b)    0+3 unknown function `mix`; there are abs, sqrt, log, min, max (did you mean `min`?)
        abs(a, b)    0+3 `abs` takes one value, found 2
        a < null     2+1 `null` can only be compared by `==` and `!=` (`x != null` asks whether x is defined)
        'abc         0+4 the quoted text has no end
        a $ b        2+1 `$` has no meaning here
                     0+0 the expression ends where a value is expected
        "##);
    }

    #[test]
    fn depth_is_bounded() {
        for text in ["(".repeat(100_000), "-".repeat(100_000), "a+".repeat(100_000) + "a", "not ".repeat(100_000)] {
            assert!(Expression::parse(&text, "axis", &resolve).is_err());
        }
    }
}
