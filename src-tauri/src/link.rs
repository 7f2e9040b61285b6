//! Links of the form `postern://resource/<name>`: parsed here, and only ever asked about.

/// The scheme, as the system knows it.
pub const SCHEME: &str = "postern";
/// Longer names are no resource's.
const LONGEST: usize = 200;

/// What a link is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Resource { name: String },
}

/// Why a link leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    #[error("it does not begin with postern://")]
    Scheme,
    #[error("it does not say resource/<name>")]
    Form,
    #[error("its name is empty, longer than {LONGEST} characters, or holds control characters")]
    Name,
}

/// Reads a link.
pub fn parse(text: &str) -> Result<Target, BadLink> {
    let rest = text.trim();
    let rest = match (rest.get(..SCHEME.len()), rest.get(SCHEME.len()..)) {
        (Some(scheme), Some(rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
        _ => return Err(BadLink::Scheme),
    };
    let rest = rest.strip_prefix("://").ok_or(BadLink::Scheme)?;
    // A link may ask for nothing but the question: what would be options is refused, not ignored.
    if rest.contains(['?', '#']) {
        return Err(BadLink::Form);
    }
    let name = rest.strip_prefix("resource/").ok_or(BadLink::Form)?;
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.contains('/') {
        return Err(BadLink::Form);
    }
    let name = decoded(name).ok_or(BadLink::Name)?;
    // Also the marks that turn the direction of writing, with which one name can look like another.
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if name.is_empty() || name.chars().count() > LONGEST || name.chars().any(odd) {
        return Err(BadLink::Name);
    }
    Ok(Target::Resource { name })
}

/// Undoes `%20` and its like.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(link: &str) -> Option<String> {
        parse(link).ok().map(|Target::Resource { name }| name)
    }

    #[test]
    fn a_link_names_a_resource() {
        for (link, wanted) in [
            ("postern://resource/orders-primary", "orders-primary"),
            ("POSTERN://resource/orders-primary/", "orders-primary"),
            ("postern://resource/Orders%20DB", "Orders DB"),
            ("postern://resource/caf%C3%A9", "café"),
        ] {
            assert_eq!(name(link).as_deref(), Some(wanted), "{link}");
        }
    }

    #[test]
    fn what_asks_for_more_than_a_resource_is_refused() {
        for (link, error) in [
            ("https://resource/a", BadLink::Scheme),
            ("postern:resource/a", BadLink::Scheme),
            ("postern://connect/a", BadLink::Form),
            ("postern://resource/a?connect=now", BadLink::Form),
            ("postern://resource/a#b", BadLink::Form),
            ("postern://resource/a/b", BadLink::Form),
            ("postern://resource/", BadLink::Name),
            ("postern://resource/a%0Ab", BadLink::Name),
            ("postern://resource/a%E2%80%AEb", BadLink::Name),
            ("postern://resource/%zz", BadLink::Name),
            ("postern://resource/%ff", BadLink::Name),
        ] {
            assert_eq!(parse(link), Err(error), "{link}");
        }
        assert_eq!(parse(&format!("postern://resource/{}", "x".repeat(201))), Err(BadLink::Name));
    }

    proptest! {
        #[test]
        fn no_text_upsets_it(text in ".*") {
            let _ = parse(&text);
            if let Some(name) = name(&format!("postern://resource/{text}")) {
                prop_assert!(!name.is_empty() && !name.chars().any(char::is_control));
            }
        }
    }
}
