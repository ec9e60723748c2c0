//! Shapes of JSON: what a body or a parameter may be. One value of [`Shape`] checks a request, describes it in
//! the OpenAPI document, and lets a test check an answer, so that the three cannot differ.

use super::fault::{Cause, Fault};
use serde_json::{Map, Value, json};

/// What a JSON value may be.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Anything.
    Any,
    /// A text.
    Text,
    /// A text of at least one character.
    Name,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A whole number, from and to.
    Integer(i64, i64),
    /// A number.
    Number,
    /// This, or null.
    Maybe(&'static Shape),
    /// An array.
    List(&'static Shape),
    /// An object of any names whose values have this shape.
    Map(&'static Shape),
    /// An object. Further fields are let through.
    Object(&'static [Field]),
    /// One of these.
    Either(&'static [Shape]),
}

/// A field of an object, or a parameter of a query.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
    /// What it means.
    pub about: &'static str,
}

/// A field that must be there.
pub const fn must(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, shape, required: true, about }
}

/// A field that may be left out.
pub const fn may(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, shape, required: false, about }
}

/// A whole number, not negative.
pub const COUNT: Shape = Shape::Integer(0, i64::MAX);
/// A quality of service.
pub const QOS: Shape = Shape::Integer(0, 2);

impl Shape {
    /// As a schema of OpenAPI 3.1, which is JSON Schema 2020-12.
    pub fn schema(&self) -> Value {
        match self {
            Shape::Any => json!({}),
            Shape::Text => json!({"type": "string"}),
            Shape::Name => json!({"type": "string", "minLength": 1}),
            Shape::OneOf(names) => json!({"type": "string", "enum": names}),
            Shape::Flag => json!({"type": "boolean"}),
            Shape::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
            Shape::Number => json!({"type": "number"}),
            Shape::Maybe(shape) => json!({"anyOf": [shape.schema(), {"type": "null"}]}),
            Shape::List(shape) => json!({"type": "array", "items": shape.schema()}),
            Shape::Map(shape) => json!({"type": "object", "additionalProperties": shape.schema()}),
            Shape::Either(shapes) => {
                json!({"anyOf": shapes.iter().map(Shape::schema).collect::<Vec<_>>()})
            }
            Shape::Object(fields) => {
                let named = |field: &Field| {
                    let mut schema = field.shape.schema();
                    if let Some(schema) = schema.as_object_mut().filter(|_| !field.about.is_empty()) {
                        schema.insert("description".to_owned(), field.about.into());
                    }
                    (field.name.to_owned(), schema)
                };
                let properties: Map<String, Value> = fields.iter().map(named).collect();
                let required: Vec<_> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
                json!({"type": "object", "properties": properties, "required": required})
            }
        }
    }

    /// In words: `a whole number from 0 to 2`.
    fn expected(&self) -> String {
        match self {
            Shape::Any => "anything".to_owned(),
            Shape::Text => "a text".to_owned(),
            Shape::Name => "a text that is not empty".to_owned(),
            Shape::OneOf(names) => format!("one of {}", names.join(", ")),
            Shape::Flag => "true or false".to_owned(),
            Shape::Integer(min, i64::MAX) => format!("a whole number, at least {min}"),
            Shape::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Shape::Number => "a number".to_owned(),
            Shape::Maybe(shape) => format!("{} or null", shape.expected()),
            Shape::List(_) => "an array".to_owned(),
            Shape::Map(_) | Shape::Object(_) => "an object".to_owned(),
            Shape::Either(shapes) => shapes.iter().map(Shape::expected).collect::<Vec<_>>().join(" or "),
        }
    }

    /// Checks a value; `name` is what it is called in the error.
    ///
    /// # Errors
    /// A required field that is missing, or what was expected and what came.
    pub fn check(&self, name: &str, value: &Value) -> Result<(), Fault> {
        let bad = || {
            let mut got = value.to_string();
            if let Some((cut, _)) = got.char_indices().nth(60) {
                got.truncate(cut);
                got.push('…');
            }
            Err(Fault::new(Cause::BadValue, format!("{name}: expected {}, got {got}", self.expected())))
        };
        match (self, value) {
            (Shape::Any, _)
            | (Shape::Text, Value::String(_))
            | (Shape::Flag, Value::Bool(_))
            | (Shape::Number, Value::Number(_))
            | (Shape::Maybe(_), Value::Null) => Ok(()),
            (Shape::Name, Value::String(text)) if !text.is_empty() => Ok(()),
            (Shape::OneOf(names), Value::String(text)) if names.contains(&text.as_str()) => Ok(()),
            (Shape::Integer(min, max), Value::Number(n)) if integer(n, *min, *max) => Ok(()),
            (Shape::Maybe(shape), value) => shape.check(name, value),
            (Shape::List(shape), Value::Array(items)) => {
                items.iter().enumerate().try_for_each(|(i, item)| shape.check(&format!("{name}[{i}]"), item))
            }
            (Shape::Map(shape), Value::Object(items)) => {
                items.iter().try_for_each(|(key, item)| shape.check(&inner(name, key), item))
            }
            (Shape::Object(fields), Value::Object(items)) => {
                fields.iter().try_for_each(|field| match items.get(field.name) {
                    Some(item) => field.shape.check(&inner(name, field.name), item),
                    None if field.required => {
                        Err(Fault::new(Cause::NoParameter, format!("{} is missing", inner(name, field.name))))
                    }
                    None => Ok(()),
                })
            }
            (Shape::Either(shapes), value) if shapes.iter().any(|s| s.check(name, value).is_ok()) => Ok(()),
            _ => bad(),
        }
    }

    /// Reads a parameter of a path or a query, which is a text.
    ///
    /// # Errors
    /// What was expected and what came.
    pub fn read(&self, name: &str, text: &str) -> Result<Value, Fault> {
        let value = match self {
            Shape::Integer(..) | Shape::Number | Shape::Flag => text.parse().ok(),
            _ => None,
        };
        let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
        self.check(name, &value).map(|()| value)
    }
}

fn inner(outer: &str, name: &str) -> String {
    if outer.is_empty() { name.to_owned() } else { format!("{outer}.{name}") }
}

/// Whether it is a whole number within bounds; `1.0` is one, as JSON Schema says.
fn integer(n: &serde_json::Number, min: i64, max: i64) -> bool {
    let most = 2f64.powi(63);
    let float = || n.as_f64().filter(|n| n.fract() == 0.0 && (-most..most).contains(n)).map(|n| n as i64);
    n.as_i64().or_else(float).is_some_and(|n| (min..=max).contains(&n))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: Shape = Shape::Object(&[
        must("topic", Shape::Name, "A topic."),
        may("qos", QOS, ""),
        may("tags", Shape::Map(&Shape::List(&Shape::Maybe(&Shape::Text))), ""),
    ]);

    fn told(value: Value) -> (Cause, String) {
        let fault = BODY.check("", &value).unwrap_err();
        (fault.cause, fault.message.into_owned())
    }

    #[test]
    fn a_body_is_checked_and_the_fault_names_the_field() {
        assert_eq!(
            BODY.check("", &json!({"topic": "a", "qos": 2, "other": 1, "tags": {"x": ["y", null]}})),
            Ok(())
        );
        assert_eq!(told(json!({"qos": 1})), (Cause::NoParameter, "topic is missing".into()));
        assert_eq!(told(json!({"topic": 1})).1, "topic: expected a text that is not empty, got 1");
        assert_eq!(
            told(json!({"topic": "a", "qos": 3})).1,
            "qos: expected a whole number from 0 to 2, got 3"
        );
        assert_eq!(told(json!({"topic": "a", "qos": 1.5})).0, Cause::BadValue);
        assert_eq!(told(json!({"topic": "a", "tags": {"x": [1]}})).1, "tags.x[0]: expected a text, got 1");
        assert_eq!(told(json!([])).1, ": expected an object, got []");
        let long = told(json!({"topic": "a", "qos": "\u{e4}".repeat(500)})).1;
        assert!(long.ends_with('…') && long.len() < 250, "{long}");
    }

    #[test]
    fn a_parameter_is_read_by_its_shape() {
        assert_eq!(COUNT.read("n", "7"), Ok(json!(7)));
        assert_eq!(Shape::Text.read("n", "7"), Ok(json!("7")));
        assert_eq!(Shape::Flag.read("n", "true"), Ok(json!(true)));
        assert_eq!(Shape::OneOf(&["a", "b"]).read("n", "b"), Ok(json!("b")));
        for (shape, text) in [
            (COUNT, "-1"),
            (COUNT, "1.5"),
            (COUNT, ""),
            (COUNT, "null"),
            (COUNT, "9223372036854775808"),
            (COUNT, "1e300"),
            (COUNT, "[1]"),
            (Shape::Flag, "1"),
            (Shape::Flag, "TRUE"),
            (Shape::OneOf(&["a"]), "b"),
            (Shape::Name, ""),
        ] {
            let fault = shape.read("n", text).unwrap_err();
            assert!(fault.cause == Cause::BadValue && fault.message.starts_with("n: expected "), "{fault:?}");
        }
    }

    #[test]
    fn a_schema_says_what_the_check_does() {
        assert_eq!(
            BODY.schema(),
            json!({
                "type": "object",
                "properties": {
                    "topic": {"type": "string", "minLength": 1, "description": "A topic."},
                    "qos": {"type": "integer", "minimum": 0, "maximum": 2},
                    "tags": {
                        "type": "object",
                        "additionalProperties": {
                            "type": "array",
                            "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}
                        }
                    }
                },
                "required": ["topic"]
            })
        );
    }
}
