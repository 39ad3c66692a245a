//! Topic templates: `plant/{area}/{asset}/{point}` as a subscription filter and as a matcher with captures.
use crate::config::Topic;

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
    /// Compiles `topic.template`. `+` and `#` may stand in it as in a filter.
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

#[cfg(test)]
mod tests {
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
}
