//! Any text: the reader of filters never panics, and what it reads prints as a text that reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_proto::{
    filter::{Filter, Subject, Value},
    resource::Tags,
};

struct Anything(Tags);

impl Subject for Anything {
    fn value(&self, field: &str) -> Value<'_> {
        if field == "tags" { Value::Tags(&self.0) } else { Value::from(field.to_owned()) }
    }
}

fuzz_target!(|text: &str| {
    let Ok(filter) = text.parse::<Filter>() else { return };
    assert_eq!(filter.to_string().parse(), Ok(filter.clone()));
    let tags = Tags::from([("env".to_owned(), "prod".to_owned()), ("*".to_owned(), "\"".to_owned())]);
    filter.matches(&Anything(tags));
});
