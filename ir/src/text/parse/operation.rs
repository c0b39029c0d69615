//! The lines of operations: `%3: f32[b,t] = dot {axes=[d]} %1, %2`.
use super::super::TextError;
use super::super::cursor::{is_float, read_f32};
use super::super::near::near;
use super::{Kind, Parser, Result, bracketed};
use crate::axis::AxisSet;
use crate::dtype::{DType, Scalar};
use crate::graph::{Type, ValueId};
use crate::op::{Attr, AttrError, Binary, Op, Reduction, Unary};

/// The mnemonics that are not a function's name.
const MNEMONICS: [&str; 40] = [
    "leaf",
    "const",
    "iota",
    "random",
    "select",
    "cast",
    "argmax",
    "dot",
    "linear_recurrence",
    "rename",
    "at",
    "slice",
    "pad",
    "stack",
    "concat",
    "shift",
    "gather",
    "scatter_add",
    "update",
    "stop_gradient",
    "part",
    "softmax",
    "logsumexp",
    "layer_norm",
    "rms_norm",
    "rope",
    "attention",
    "attention_grad",
    "selective_scan",
    "selective_scan_grad",
    "gated_recurrence",
    "gated_recurrence_grad",
    "mix",
    "causal_conv",
    "cross_entropy",
    "cross_entropy_grad",
    "top_k",
    "sample",
    "routed_dot",
    "routed_dot_grad",
];

type Attributes = Vec<(String, Attr)>;
/// The token of every attribute's name.
type Places = Vec<(String, usize)>;

/// Every mnemonic there is.
pub(crate) fn mnemonics() -> impl Iterator<Item = &'static str> {
    let functions = Unary::ALL.into_iter().map(Unary::name).chain(Binary::ALL.into_iter().map(Binary::name));
    functions.chain(Reduction::ALL.into_iter().map(Reduction::name)).chain(MNEMONICS)
}

impl Parser {
    pub(super) fn operation(&mut self) -> Result<()> {
        let name_at = self.at;
        let Kind::Value(name) = self.next() else { return self.fail("a value, as in `%name`") };
        if self.values.contains_key(&name) {
            return Err(self.error(name_at, format!("`%{name}`, which is defined above"), "a new value"));
        }
        let types_at = self.at + 1;
        let types = if self.eat(':') { Some(self.types()?) } else { None };
        self.mark('=')?;
        let op_at = self.at;
        let op = self.op()?;
        let args = self.operands()?;
        let pushed = self.g.push(op, &args, self.scope);
        let v = pushed.map_err(|e| {
            self.error(op_at, format!("an operation without a type ({})", e.fault), "operands that fit")
        })?;
        let inferred = &self.g.node(v).types;
        if let Some(types) = types
            && *types != **inferred
        {
            let show = |types: &[Type]| types.iter().map(|t| self.show_type(*t)).collect::<Vec<_>>().join(", ");
            return Err(self.error(types_at, show(&types), format!("the inferred {}", show(inferred))));
        }
        self.values.insert(name, v);
        Ok(())
    }

    fn types(&mut self) -> Result<Vec<Type>> {
        let mut types = vec![self.one_type()?];
        while self.eat(',') {
            types.push(self.one_type()?);
        }
        Ok(types)
    }

    fn one_type(&mut self) -> Result<Type> {
        let dtype = self.dtype()?;
        let at = self.at;
        let axes = bracketed(self, Self::known_axis)?;
        let set = AxisSet::of(&axes);
        if set.len() != axes.len() {
            return Err(self.error(at, "an axis twice", "a set of axes"));
        }
        Ok(Type::new(dtype, set))
    }

    fn operands(&mut self) -> Result<Vec<ValueId>> {
        let mut args = vec![];
        while !matches!(self.peek(), Kind::Newline | Kind::End) || !args.is_empty() {
            args.push(self.operand()?);
            if !self.eat(',') {
                break;
            }
        }
        Ok(args)
    }

    /// A value, or a leaf or a constant that stands for one.
    pub(super) fn operand(&mut self) -> Result<ValueId> {
        let op = match self.peek() {
            Kind::At(_) => Op::Leaf(self.known_leaf()?),
            Kind::Number(_) | Kind::Word(_) => Op::Const(self.scalar()?),
            _ => return self.known_value(),
        };
        match self.g.ids().find(|v| self.g.node(*v).op == op) {
            Some(v) => Ok(v),
            None => {
                let pushed = self.g.push(op, &[], self.scope);
                pushed.map_err(|e| self.error(self.at, e.fault, "an operand"))
            }
        }
    }

    /// A mnemonic with its attributes.
    fn op(&mut self) -> Result<Op> {
        let at = self.at;
        let Kind::Word(mnemonic) = self.peek().clone() else { return self.fail("an operation") };
        self.next();
        let (attrs, places) = match mnemonic.as_str() {
            "leaf" => (vec![("leaf".to_string(), Attr::Leaf(self.known_leaf()?))], vec![]),
            "const" => (vec![("value".to_string(), Attr::Scalar(self.scalar()?))], vec![]),
            _ => self.attributes()?,
        };
        Op::from_parts(&mnemonic, &attrs).map_err(|e| self.attr_error(&mnemonic, at, e, &places))
    }

    /// Says where an operation's attributes are wrong; `places` are the tokens of their names.
    fn attr_error(&self, mnemonic: &str, at: usize, e: AttrError, places: &Places) -> TextError {
        let place = |key: &str| places.iter().find(|(k, _)| k == key).map_or(at, |(_, at)| *at);
        match e {
            AttrError::UnknownMnemonic(m) => {
                let error = self.error(at, format!("`{m}`"), "an operation");
                TextError { near: near(&m, mnemonics()), ..error }
            }
            AttrError::Missing { key, .. } => {
                self.error(at, format!("`{mnemonic}` without `{key}`"), format!("`{key}=…`"))
            }
            AttrError::WrongKind { key, expected, .. } => {
                self.error(place(key), format!("another value of `{key}`"), expected)
            }
            AttrError::Unexpected { key, .. } => {
                self.error(place(&key), format!("`{key}`"), format!("an attribute that `{mnemonic}` has"))
            }
        }
    }

    /// `{key=value, …}` and the token of every key.
    fn attributes(&mut self) -> Result<(Attributes, Places)> {
        let (mut attrs, mut places) = (vec![], vec![]);
        if !self.eat('{') {
            return Ok((attrs, places));
        }
        while !self.eat('}') {
            if !attrs.is_empty() {
                self.mark(',')?;
            }
            let at = self.at;
            let Kind::Word(key) = self.peek().clone() else { return self.fail("the name of an attribute") };
            if places.iter().any(|(k, _)| *k == key) {
                return self.fail("every attribute once");
            }
            self.next();
            self.mark('=')?;
            attrs.push((key.clone(), self.attribute()?));
            places.push((key, at));
        }
        Ok((attrs, places))
    }

    fn attribute(&mut self) -> Result<Attr> {
        let attr = match self.peek() {
            Kind::Mark('[') => return Ok(Attr::List(bracketed(self, Self::known_axis)?)),
            Kind::At(_) => return Ok(Attr::Leaf(self.known_leaf()?)),
            Kind::Quoted(_) => return Ok(Attr::Axis(self.known_axis()?)),
            kind => match (read_f32(kind), kind) {
                (Some(x), _) => Attr::Float(x.to_bits()),
                (None, Kind::Number(n)) if is_float(n) => return self.fail("a number that an f32 can hold"),
                (None, Kind::Number(_)) => return Ok(Attr::Int(self.integer("an integer of 64 bits")?)),
                (None, Kind::Word(w)) if w == "true" || w == "false" => Attr::Flag(w == "true"),
                (None, Kind::Word(w)) => match DType::from_name(w) {
                    Some(d) => Attr::DType(d),
                    None => return Ok(Attr::Axis(self.known_axis()?)),
                },
                _ => return self.fail("the value of an attribute"),
            },
        };
        self.next();
        Ok(attr)
    }

    fn scalar(&mut self) -> Result<Scalar> {
        let scalar = match (read_f32(self.peek()), self.peek()) {
            (Some(x), _) => Scalar::f32(x),
            (None, Kind::Number(n)) if is_float(n) => return self.fail("a number that an f32 can hold"),
            (None, Kind::Number(_)) => return Ok(Scalar::I32(self.integer("an integer of 32 bits")?)),
            (None, Kind::Word(w)) if w == "true" || w == "false" => Scalar::Bool(w == "true"),
            _ => return self.fail("a constant"),
        };
        self.next();
        Ok(scalar)
    }
}
