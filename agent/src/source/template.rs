//! Topic templates: `plant/{area}/{asset}/{point}` as a subscription filter and as a matcher with captures.
use std::collections::BTreeSet;

use crate::config::Topic;

/// Longest topic or filter that MQTT can carry, bytes.
const LONGEST: usize = u16::MAX as usize;

/// A compiled template with the payload shape behind it.
#[derive(Debug)]
pub struct Template {
    levels: Vec<Level>,
    /// What is published there.
    pub topic: Topic,
}

#[derive(Debug, PartialEq)]
enum Level {
    Exact(String),
    Capture(String),
    Any,
    Rest,
}

/// What a topic says about its message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Captures<'t> {
    /// Level at `{asset}`.
    pub asset: Option<&'t str>,
    /// Level at `{point}`.
    pub point: Option<&'t str>,
}

impl Template {
    /// Compiles `topic.template`, which the check of the configuration has found without [`faults`]. `+` and `#` may stand in it as in a filter.
    pub fn new(topic: Topic) -> Self {
        let levels = topic
            .template
            .split('/')
            .map(|level| match level {
                "+" => Level::Any,
                "#" => Level::Rest,
                _ => match level.strip_prefix('{').and_then(|l| l.strip_suffix('}')) {
                    Some(name) => Level::Capture(name.to_owned()),
                    None => Level::Exact(level.to_owned()),
                },
            })
            .collect();
        Self { levels, topic }
    }

    /// The filter to subscribe to.
    pub fn filter(&self) -> String {
        let levels: Vec<&str> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Exact(text) => text,
                Level::Capture(_) | Level::Any => "+",
                Level::Rest => "#",
            })
            .collect();
        levels.join("/")
    }

    /// Matches a topic.
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let mut captures = Captures::default();
        let mut given = topic.split('/');
        for level in &self.levels {
            if *level == Level::Rest {
                return Some(captures);
            }
            let text = given.next()?;
            match level {
                Level::Exact(exact) if exact != text => return None,
                Level::Capture(name) if name == "asset" => captures.asset = Some(text),
                Level::Capture(name) if name == "point" => captures.point = Some(text),
                _ => {}
            }
        }
        given.next().is_none().then_some(captures)
    }
}

/// What is wrong with the text of a template; nothing where [`Template::filter`] is a filter that every broker takes.
pub fn faults(template: &str) -> Vec<String> {
    const EXAMPLE: &str = "write for example `plant/{area}/{asset}/{point}`";
    let mut faults = Vec::new();
    if template.is_empty() {
        faults.push(format!("is empty; {EXAMPLE}"));
    }
    if template.len() > LONGEST {
        faults.push(format!("has {} bytes; MQTT allows {LONGEST}", template.len()));
    }
    if template.contains('\0') {
        faults.push("holds a NUL character, which MQTT forbids; leave it out".to_owned());
    }
    if template.starts_with("$share/") {
        faults.push(format!("is a shared subscription, of which a gateway would see a part only; {EXAMPLE}"));
    }
    let mut captured = BTreeSet::new();
    let mut levels = template.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        match level {
            "#" if !last => faults.push("has `#` before its end; it stands for all further levels, so it must be the last one".to_owned()),
            "#" | "+" => {}
            _ => match level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) if !is_capture_name(name) => {
                    faults.push(format!("captures `{level}`; a name of letters, digits, `-` and `_` must stand between the braces"));
                }
                Some(name) if !captured.insert(name) => faults.push(format!("captures `{level}` twice; each name captures one level")),
                None if level.contains(['+', '#']) => {
                    faults.push(format!("has a wildcard beside other characters in `{level}`; `+` and `#` must be a whole level"));
                }
                None if level.contains(['{', '}']) => {
                    faults.push(format!("has a capture beside other characters in `{level}`; a capture must be a whole level, such as `{{asset}}`"));
                }
                _ => {}
            },
        }
    }
    faults
}

fn is_capture_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// Whether a topic exists that both filters match. A broker may then deliver its messages once for each of them.
pub fn overlaps(filter_a: &str, filter_b: &str) -> bool {
    // Wildcards of the first level leave out the broker's own topics, `$SYS/…`.
    let wild = |filter: &str| filter.starts_with(['+', '#']);
    if (filter_a.starts_with('$') && wild(filter_b)) || (filter_b.starts_with('$') && wild(filter_a)) {
        return false;
    }
    let (mut a, mut b) = (filter_a.split('/'), filter_b.split('/'));
    loop {
        match (a.next(), b.next()) {
            // `#` stands for no level, too: `plant/#` matches `plant`.
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(level_a), Some(level_b)) if level_a == level_b || level_a == "+" || level_b == "+" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Shape;

    fn template(text: &str) -> Template {
        Template::new(Topic { template: text.into(), shape: Shape::default(), asset: None, point: None })
    }

    #[test]
    fn captures_levels() {
        let t = template("plant/{area}/{asset}/{point}");
        assert_eq!(t.filter(), "plant/+/+/+");
        assert_eq!(t.captures("plant/hall/pump-1/flow"), Some(Captures { asset: Some("pump-1"), point: Some("flow") }));
        assert_eq!(t.captures("plant/hall/pump-1"), None);
        assert_eq!(t.captures("plant/hall/pump-1/flow/raw"), None);
        assert_eq!(t.captures("other/hall/pump-1/flow"), None);
    }

    #[test]
    fn wildcards_pass_through() {
        let t = template("a/+/{asset}/#");
        assert_eq!(t.filter(), "a/+/+/#");
        assert_eq!(t.captures("a/x/pump/y/z").and_then(|c| c.asset), Some("pump"));
    }

    #[test]
    fn templates_that_no_broker_or_matcher_takes_are_faults() {
        for (template, expected) in [
            ("", "is empty"),
            ("plant/#/x", "has `#` before its end"),
            ("#/#", "has `#` before its end"),
            ("plant/{asset}/{asset}", "captures `{asset}` twice"),
            ("plant-{asset}/x", "a capture must be a whole level"),
            ("{area}{asset}", "captures `{area}{asset}`"),
            ("plant/{asset", "a capture must be a whole level"),
            ("plant/{}/x", "captures `{}`"),
            ("plant/a+/x", "has a wildcard beside other characters in `a+`"),
            ("plant/++", "has a wildcard beside other characters in `++`"),
            ("plant/x#", "has a wildcard beside other characters in `x#`"),
            ("plant/{a+}", "captures `{a+}`"),
            ("plant/a\0b", "holds a NUL"),
            ("$share/group/{asset}", "is a shared subscription"),
        ] {
            let faults = faults(template);
            assert!(faults.len() == 1 && faults[0].contains(expected), "`{template}`: {faults:?}");
        }
        assert_eq!(faults(&"x".repeat(LONGEST + 1)).len(), 1);
        assert_eq!(faults("#/a+/{b}/{b}").len(), 3, "all at once");
    }

    #[test]
    fn filters_overlap_where_one_topic_matches_both() {
        for (a, b, expected) in [
            ("plant/+/flow", "plant/+/flow", true),
            ("plant/+/+", "plant/pump-1/flow", true),
            ("plant/+/flow", "plant/pump-1/+", true),
            ("plant/#", "plant", true),
            ("plant/#", "plant/a/b/c", true),
            ("#", "+/+", true),
            ("plant/+", "plant/", true),
            ("plant/+/flow", "plant/+/pressure", false),
            ("plant/+", "plant/+/+", false),
            ("plant/+/+", "plant/+/+/waveform", false),
            ("plant/#", "hall/#", false),
            ("plant", "plant/", false),
            ("$SYS/#", "#", false),
            ("+/broker", "$SYS/broker", false),
            ("$SYS/#", "$SYS/broker/load", true),
        ] {
            assert_eq!(overlaps(a, b), expected, "{a} and {b}");
            assert_eq!(overlaps(b, a), expected, "{b} and {a}");
        }
    }

    /// MQTT 5, section 4.7.1, said in another way than above.
    fn is_valid_filter(filter: &str) -> bool {
        let levels: Vec<&str> = filter.split('/').collect();
        let whole = levels.iter().all(|level| level.len() == 1 || !level.contains(['+', '#']));
        !filter.is_empty() && filter.len() <= LONGEST && !filter.contains('\0') && whole && !levels[..levels.len() - 1].contains(&"#")
    }

    /// Levels from so few words that templates meet, and wrong ones among them.
    fn any_template() -> impl Strategy<Value = String> {
        let level = proptest::sample::select(vec!["a", "b", "", "$a", "+", "#", "{asset}", "{point}", "a+", "x{y}", "{}", "\0"]);
        proptest::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn a_template_without_fault_gives_a_valid_filter(text in any_template()) {
            if faults(&text).is_empty() {
                prop_assert!(is_valid_filter(&template(&text).filter()), "{}", text);
            }
        }

        #[test]
        fn two_templates_that_match_one_topic_overlap(a in any_template(), b in any_template(), topic in "[ab](/[ab]?){0,4}") {
            let (a_captures, b_captures) = (template(&a).captures(&topic).is_some(), template(&b).captures(&topic).is_some());
            if faults(&a).is_empty() && faults(&b).is_empty() && a_captures && b_captures {
                prop_assert!(overlaps(&template(&a).filter(), &template(&b).filter()), "{} and {}", a, b);
            }
        }
    }
}
