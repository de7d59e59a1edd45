//! The values of a pickle, as a tree to walk.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::machine::{Machine, Ran};
use super::value::{Id, Made, Tensor, Value};
use super::{MAX_BYTES, MAX_DEPTH, MAX_VISITS};
use crate::official::fault::{Cause, Fault};

/// All values of a pickle.
#[derive(Debug)]
pub struct Tree<'a> {
    nodes: Vec<Made<'a>>,
    root: Id,
    /// Where the pickle begins in its file.
    base: u64,
    /// Names that are not known, module and name on a line each.
    foreign: BTreeSet<&'a str>,
    /// Elements of containers that may still be looked at.
    visits: Cell<u64>,
}

/// A value in its tree.
#[derive(Clone, Copy, Debug)]
pub struct Item<'t, 'a> {
    tree: &'t Tree<'a>,
    id: Id,
}

impl<'t, 'a> Item<'t, 'a> {
    /// Returns the value itself.
    pub fn value(self) -> &'t Value<'a> {
        &self.tree.nodes[self.id as usize].value
    }

    /// Returns a fault at the instruction that made this value.
    pub fn fault(self, cause: impl Into<Cause>) -> Fault {
        let offset = self.tree.nodes[self.id as usize].offset;
        Fault::new(self.tree.base + u64::from(offset), cause)
    }

    /// Returns a fault at this value: it is not what an official checkpoint has here.
    pub fn content(self, cause: impl Into<String>) -> Fault {
        self.fault(Cause::Content(cause.into()))
    }

    fn expected(self, expected: &'static str) -> Fault {
        if let Value::Foreign(name) = self.value() {
            let name = dotted(name);
            return self.fault(Cause::Code { name, expected });
        }
        let found = self.value().kind();
        self.fault(Cause::Type { found, expected })
    }

    /// Counts the elements of a container that are about to be looked at.
    fn visit(self, elements: usize) -> Result<(), Fault> {
        let left = self.tree.visits.get().checked_sub(1 + elements as u64);
        self.tree.visits.set(left.ok_or_else(|| {
            let cause =
                "large containers in so many places that reading all of them would take hours";
            self.fault(Cause::TooMuch(cause.to_owned()))
        })?);
        Ok(())
    }

    fn at(self, id: &Id) -> Item<'t, 'a> {
        Item {
            tree: self.tree,
            id: *id,
        }
    }

    /// Returns keys and values of a dictionary.
    ///
    /// # Errors
    /// [`Cause::Type`] if it is none; [`Cause::TooMuch`] once far more was looked at than any checkpoint has.
    pub fn entries(self) -> Result<impl Iterator<Item = (Item<'t, 'a>, Item<'t, 'a>)>, Fault> {
        match self.value() {
            Value::Dict(pairs) => {
                self.visit(pairs.len())?;
                let pairs = pairs.iter();
                Ok(pairs.map(move |(key, value)| (self.at(key), self.at(value))))
            }
            _ => Err(self.expected("a dict")),
        }
    }

    /// Returns the elements of a list or tuple.
    ///
    /// # Errors
    /// [`Cause::Type`] if it is none; [`Cause::TooMuch`] once far more was looked at than any checkpoint has.
    pub fn elements(self) -> Result<impl ExactSizeIterator<Item = Item<'t, 'a>>, Fault> {
        match self.value() {
            Value::List(ids) | Value::Tuple(ids) => {
                self.visit(ids.len())?;
                Ok(ids.iter().map(move |id| self.at(id)))
            }
            _ => Err(self.expected("a list")),
        }
    }

    /// Returns the value under a key of a dictionary, if it has the key.
    ///
    /// # Errors
    /// As of [`entries`](Item::entries), and if the key stands twice.
    pub fn find(self, key: &str) -> Result<Option<Item<'t, 'a>>, Fault> {
        let mut found = self
            .entries()?
            .filter(|(name, _)| matches!(name.value(), Value::Text(text) if *text == key));
        let value = found.next().map(|(_, value)| value);
        match found.next() {
            Some((second, _)) => Err(second.content(format!("key `{key}` stands twice"))),
            None => Ok(value),
        }
    }

    /// Returns the value under a key that a dictionary must have.
    ///
    /// # Errors
    /// [`Cause::MissingKey`], or as of [`find`](Item::find).
    pub fn get(self, key: &str) -> Result<Item<'t, 'a>, Fault> {
        self.find(key)?
            .ok_or_else(|| self.fault(Cause::MissingKey(key.to_owned())))
    }

    /// Returns the text of a string.
    ///
    /// # Errors
    /// [`Cause::Type`] if the value is none.
    pub fn text(self) -> Result<&'a str, Fault> {
        match self.value() {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    /// Returns an integer of 0 or more.
    ///
    /// # Errors
    /// [`Cause::Type`] or [`Cause::Content`] if the value is none.
    pub fn count(self) -> Result<u64, Fault> {
        match self.value() {
            Value::Int(number) => u64::try_from(*number)
                .map_err(|_| self.content(format!("{number}, expected 0 or more"))),
            _ => Err(self.expected("an int")),
        }
    }

    /// Returns a number, whole or not.
    ///
    /// # Errors
    /// [`Cause::Type`] if the value is none.
    pub fn number(self) -> Result<f64, Fault> {
        match self.value() {
            Value::Int(number) => Ok(*number as f64),
            Value::Float(number) => Ok(*number),
            _ => Err(self.expected("a number")),
        }
    }

    /// Returns a tensor.
    ///
    /// # Errors
    /// [`Cause::Type`] if the value is none.
    pub fn tensor(self) -> Result<&'t Tensor<'a>, Fault> {
        match self.value() {
            Value::Tensor(tensor) => Ok(tensor),
            _ => Err(self.expected("a tensor")),
        }
    }
}

impl<'a> Tree<'a> {
    /// Reads the pickle `bytes`, which stands at byte `base` of its file (for messages).
    ///
    /// # Errors
    /// A [`Fault`] at the instruction that has no place in a checkpoint.
    pub fn read(bytes: &'a [u8], base: u64) -> Result<Tree<'a>, Fault> {
        if bytes.len() > MAX_BYTES {
            let length = bytes.len();
            let cause =
                format!("a pickle of {length} bytes; no checkpoint needs more than {MAX_BYTES}");
            return Err(Fault::new(base, Cause::TooMuch(cause)));
        }
        let Ran {
            nodes,
            root,
            foreign,
        } = Machine::new(bytes, base).run()?;
        let tree = Tree {
            nodes,
            root,
            foreign,
            base,
            visits: Cell::new(MAX_VISITS),
        };
        tree.check_nesting()?;
        Ok(tree)
    }

    /// Returns the names in the pickle that are not known, at most a hundred.
    pub fn foreign(&self) -> impl Iterator<Item = String> {
        self.foreign.iter().map(|name| dotted(name))
    }

    /// Returns what the pickle describes.
    pub fn root(&self) -> Item<'_, 'a> {
        Item {
            tree: self,
            id: self.root,
        }
    }

    /// Refuses a value that contains itself, and containers too deep inside each other.
    ///
    /// It visits each value once, however often it is referred to.
    fn check_nesting(&self) -> Result<(), Fault> {
        const OPEN: u8 = u8::MAX;
        // 0: not yet visited; OPEN: on the path; else the containers below and including it.
        let mut height = vec![0u8; self.nodes.len()];
        let mut path: Vec<(Id, usize)> = vec![(self.root, 0)];
        while let Some((id, next)) = path.last_mut() {
            let (id, node) = (*id, &self.nodes[*id as usize]);
            height[id as usize] = OPEN;
            if let Some(child) = node.child(*next) {
                *next += 1;
                match height[child as usize] {
                    0 => path.push((child, 0)),
                    OPEN => {
                        let item = Item {
                            tree: self,
                            id: child,
                        };
                        return Err(
                            item.fault(format!("{} that contains itself", node.value.kind()))
                        );
                    }
                    _ => {}
                }
                continue;
            }
            let below = (0..)
                .map_while(|n| node.child(n))
                .map(|child| height[child as usize]);
            let tall = 1 + below.max().unwrap_or(0);
            if tall > MAX_DEPTH {
                let item = Item { tree: self, id };
                let cause = format!("more than {MAX_DEPTH} containers inside each other");
                return Err(item.fault(Cause::TooMuch(cause)));
            }
            height[id as usize] = tall;
            path.pop();
        }
        Ok(())
    }
}

/// Returns a name as Python writes it.
fn dotted(name: &str) -> String {
    name.replacen('\n', ".", 1)
}

impl Made<'_> {
    /// Returns the `n`-th value that this one contains.
    fn child(&self, n: usize) -> Option<Id> {
        match &self.value {
            Value::List(ids) | Value::Tuple(ids) => ids.get(n).copied(),
            Value::Dict(pairs) => {
                let &(key, value) = pairs.get(n / 2)?;
                Some(if n.is_multiple_of(2) { key } else { value })
            }
            _ => None,
        }
    }
}
