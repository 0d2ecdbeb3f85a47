//! What `include/kigo.h` declares, read from its text: functions with their parameters, structs with their fields.

use super::root;

/// A parameter or a field: its type as C writes it, without spaces before a `*`, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub ty: String,
    pub name: String,
}

impl Declared {
    /// Of `const char *path`.
    fn read(text: &str) -> Declared {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let at = text.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).expect("a type before the name");
        Declared { ty: text[..=at].trim().replace(" *", "*"), name: text[at + 1..].to_owned() }
    }

    /// What it points at, if it is a pointer: `const char` of `const char*`.
    pub fn pointee(&self) -> Option<&str> {
        self.ty.strip_suffix('*')
    }
}

#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub returns: String,
    pub parameters: Vec<Declared>,
}

#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<Declared>,
}

impl Struct {
    /// Begins with its size, and grows.
    pub fn is_sized(&self) -> bool {
        self.fields.first().is_some_and(|f| f.name == "struct_size")
    }
}

/// The header's declarations, one a statement, without comments and directives.
fn statements() -> Vec<String> {
    let header = std::fs::read_to_string(root().join("include/kigo.h")).expect("include/kigo.h");
    let code = header.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code: Vec<&str> = code.filter(|line| !line.starts_with('#') && !line.starts_with("extern")).collect();
    // The fields of a struct stay together.
    let (mut statements, mut depth, mut statement) = (Vec::new(), 0_i32, String::new());
    for c in code.join("\n").chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ';' && depth <= 0 {
            statements.push(std::mem::take(&mut statement).trim().to_owned());
        } else {
            statement.push(c);
        }
    }
    statements
}

/// All functions, in the order of the header.
pub fn functions() -> Vec<Function> {
    let functions = statements().into_iter().filter(|s| !s.starts_with("typedef") && s.contains('('));
    functions
        .map(|statement| {
            let (head, list) = statement.split_once('(').expect("a function");
            let head = Declared::read(head);
            let list = list.strip_suffix(')').expect("the end of the parameters");
            let parameters = list.split(',').filter(|p| p.trim() != "void").map(Declared::read).collect();
            Function { name: head.name, returns: head.ty, parameters }
        })
        .collect()
}

/// All structs that are not opaque.
pub fn structs() -> Vec<Struct> {
    let structs = statements().into_iter().filter(|s| s.starts_with("typedef struct") && s.contains('{'));
    structs
        .map(|statement| {
            let (head, rest) = statement.split_once('{').expect("a struct");
            let fields = rest.split_once('}').expect("its end").0;
            let fields = fields.split(';').filter(|f| !f.trim().is_empty()).map(Declared::read).collect();
            let name = head.trim_start_matches("typedef struct").trim().to_owned();
            Struct { name, fields }
        })
        .collect()
}

/// The constants whose names begin so, with their values' text.
pub fn constants(prefix: &str) -> Vec<(String, String)> {
    let header = std::fs::read_to_string(root().join("include/kigo.h")).expect("include/kigo.h");
    let defines = header.lines().filter_map(|line| line.strip_prefix("#define ")?.split_once(' '));
    defines.filter(|(name, _)| name.starts_with(prefix)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}
