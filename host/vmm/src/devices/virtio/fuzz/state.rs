//! Saved states that somebody changed.

use arbitrary::Arbitrary;
use serde_json::Value;

/// A change of one value of a state.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) struct Tamper {
    /// Which, counted in the order in which they are written.
    at: u8,
    to: Other,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Other {
    Number(u64),
    Small(u8),
    /// One bit is another.
    Flip(u8),
    True,
    False,
    Nothing,
    Text,
    /// A list has one more, or one less.
    Longer,
    Shorter,
}

impl Tamper {
    pub(super) fn apply(self, state: &mut Value) {
        let count = count(state);
        let mut left = usize::from(self.at) % count.max(1);
        change(state, &mut left, self.to);
    }
}

fn children(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    }
}

fn count(value: &mut Value) -> usize {
    1 + children(value).into_iter().map(count).sum::<usize>()
}

/// Changes the value that is `left` values from here; returns whether it was found.
fn change(value: &mut Value, left: &mut usize, to: Other) -> bool {
    let Some(next) = left.checked_sub(1) else {
        *value = match (to, value.take()) {
            (Other::Number(number), _) => number.into(),
            (Other::Small(number), _) => number.into(),
            (Other::Flip(bit), Value::Number(number)) => {
                (number.as_u64().unwrap_or(0) ^ 1 << (bit % 64)).into()
            }
            (Other::True, _) => true.into(),
            (Other::False, _) => false.into(),
            (Other::Text, _) => "text".into(),
            (Other::Longer, Value::Array(mut items)) => {
                items.extend(items.last().cloned());
                items.into()
            }
            (Other::Shorter, Value::Array(mut items)) => {
                items.pop();
                items.into()
            }
            _ => Value::Null,
        };
        return true;
    };
    *left = next;
    children(value)
        .into_iter()
        .any(|child| change(child, left, to))
}
