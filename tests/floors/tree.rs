//! Reads the sources with `syn` and knows which file a path in them means.
//!
//! A file's module is read off its place on disk. Every path that a file mentions, in a `use`, a type, an
//! expression or a macro's tokens, is written out from the crate's name on: what a `use` brought in stands
//! for what it names. Then it is walked down the modules as far as they go. Where the file reached only
//! shows the next name with `pub use`, the walk goes on from there: a name counts for the file that defines
//! it, so a lower floor can not reach up by way of the crate's root.
//!
//! A `pub use` alone is a signpost and no dependency, unless the file then uses the name itself. So is the
//! `use` of a whole module: what counts is what is then reached through it. What stands under
//! `#[cfg(test)]` is not read.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Meta, Token, UseTree, Visibility};

/// The crates of the workspace: the name in paths, and the folder of its sources.
const CRATES: [(&str, &str); 5] = [
    ("cepa", "src"),
    ("cepa_transports", "transports/src"),
    ("cepa_fleet", "fleet/src"),
    ("cepa_cli", "cli/src"),
    ("cepa_bench", "benches/src"),
];

type Path = Vec<String>;

#[derive(Default)]
pub(crate) struct File {
    pub(crate) path: String,
    /// Lines that are not tests'.
    pub(crate) lines: usize,
    pub(crate) has_head: bool,
    pub(crate) is_test: bool,
    /// The crate's name and the modules under it; empty for examples and tests.
    pub(crate) module: Path,
    /// Paths from the crate's name on, with the line where they stand; a method that is called is one
    /// that begins with a dot.
    pub(crate) mentions: Vec<(Path, usize)>,
    /// What `pub use` shows: the name, and the path behind it.
    shown: BTreeMap<String, Path>,
}

pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, File>,
    by_module: BTreeMap<Path, String>,
}

impl Tree {
    /// `sources` are pairs of a path, relative to the workspace and with `/`, and its text.
    pub(crate) fn new<'a>(sources: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut tests = Vec::new();
        let read = sources.into_iter().map(|(path, text)| {
            let (file, test_modules) = read(path, text);
            tests.extend(test_modules);
            (path.to_owned(), file)
        });
        let mut files: BTreeMap<_, _> = read.collect();
        for file in files.values_mut() {
            file.is_test |= tests.iter().any(|test| file.module.starts_with(test));
        }
        let modules = files.values().filter(|file| !file.module.is_empty());
        let by_module = modules
            .map(|f| (f.module.clone(), f.path.clone()))
            .collect();
        Self { files, by_module }
    }

    /// Files whose uses are judged: those of the crates, tests excluded.
    pub(crate) fn built(&self) -> impl Iterator<Item = &File> {
        let built = |file: &&File| !file.is_test && !file.module.is_empty();
        self.files.values().filter(built)
    }

    /// The file inside the workspace that a mentioned path means; none for a module as a whole.
    pub(crate) fn target(&self, path: &[String]) -> Option<&File> {
        let file_at = |path: &[String]| Some(&self.files[self.by_module.get(path)?]);
        let mut path = path.to_vec();
        // Signposts could point at each other; nobody hops eight times.
        for _ in 0..8 {
            let (depth, reached) = (1..=path.len())
                .rev()
                .find_map(|depth| Some((depth, file_at(&path[..depth])?)))?;
            // A name may be a module's and, shown beside it, a function's: the whole path means that one.
            let at = depth.min(path.len() - 1);
            match file_at(&path[..at]).and_then(|file| file.shown.get(&path[at])) {
                Some(behind) => path = [behind, &path[at + 1..]].concat(),
                None => return Some(reached).filter(|_| depth < path.len()),
            }
        }
        None
    }
}

/// The file, and the modules that it declares as tests. Only what is built is parsed.
fn read(path: &str, text: &str) -> (File, Vec<Path>) {
    let mut heads = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    let mut file = File {
        path: path.to_owned(),
        lines: text.lines().count(),
        has_head: heads.next().is_some_and(|line| line.starts_with("//!")),
        is_test: path
            .split('/')
            .any(|part| part == "tests" || part == "tests.rs"),
        module: module_of(path),
        ..File::default()
    };
    if file.is_test || file.module.is_empty() {
        return (file, Vec::new());
    }
    let source = syn::parse_file(text)
        .unwrap_or_else(|error| panic!("{path}:{}: {error}", line(error.span())));
    let mut reader = Reader {
        module: file.module.clone(),
        ..Reader::default()
    };
    reader.visit_file(&source);
    file.is_test = only_for_tests(&source.attrs);
    file.lines -= reader.test_lines.len();
    for (module, name, path) in &reader.shown {
        let full = reader.in_full(module, path, 0).into_iter();
        file.shown.extend(full.map(|path| (name.clone(), path)));
    }
    for (module, path, line) in &reader.paths {
        let full = reader.in_full(module, path, 0).into_iter();
        file.mentions.extend(full.map(|path| (path, *line)));
    }
    (file, reader.test_modules)
}

fn module_of(path: &str) -> Path {
    let inside = |(name, folder): (&str, &str)| {
        let rest = path.strip_prefix(folder)?.strip_prefix('/')?;
        let parts = rest.trim_end_matches(".rs").split('/');
        let mut module: Path = [name].into_iter().chain(parts).map(str::to_owned).collect();
        let root = module.len() == 2 && ["lib", "main"].contains(&module[1].as_str());
        if root || module.ends_with(&["mod".to_owned()]) {
            module.pop();
        }
        Some(module)
    };
    CRATES.into_iter().find_map(inside).unwrap_or_default()
}

/// Goes through one file and collects.
#[derive(Default)]
struct Reader {
    /// The module that we are in, inline ones included.
    module: Path,
    /// What a name at the start of a path stands for in a module. All meanings, if blocks differ.
    known: BTreeMap<(Path, String), BTreeSet<Path>>,
    /// The module of a `pub use`, the name, and the path as written.
    shown: Vec<(Path, String, Path)>,
    /// The module, the path as written, and its line.
    paths: Vec<(Path, Path, usize)>,
    test_lines: BTreeSet<usize>,
    test_modules: Vec<Path>,
}

impl Reader {
    /// A path from the crate's name on; one that leads out of the workspace as it is.
    fn in_full(&self, module: &[String], path: &[String], hops: usize) -> Vec<Path> {
        let mut base = module.to_vec();
        let supers = path.iter().take_while(|part| *part == "super").count();
        match path[0].as_str() {
            "crate" => base.truncate(1),
            "self" => {}
            "super" => base.truncate(base.len().saturating_sub(supers)),
            name => {
                let known = self
                    .known
                    .get(&(base, name.to_owned()))
                    .into_iter()
                    .flatten();
                // `use x::x` says nothing of what the first x is.
                let known = known.filter(|known| known[0] != name && hops < 8);
                let further = known.map(|known| [known, &path[1..]].concat());
                let full: Vec<_> = further
                    .flat_map(|next| self.in_full(module, &next, hops + 1))
                    .collect();
                return if full.is_empty() {
                    vec![path.to_vec()]
                } else {
                    full
                };
            }
        }
        base.extend_from_slice(&path[supers.max(1)..]);
        vec![base]
    }

    fn mention(&mut self, path: Path, at: &Ident) {
        self.paths
            .push((self.module.clone(), path, line(at.span())));
    }

    fn method(&mut self, name: &Ident) {
        self.mention(vec![".".to_owned(), name.to_string()], name);
    }

    fn know(&mut self, name: String, path: Path) {
        self.known
            .entry((self.module.clone(), name))
            .or_default()
            .insert(path);
    }

    fn use_tree(&mut self, tree: &UseTree, prefix: &[String], public: bool) {
        let with = |ident: &dyn ToString| match ident.to_string().as_str() {
            "self" if !prefix.is_empty() => prefix.to_vec(),
            part => [prefix, &[part.to_owned()]].concat(),
        };
        let (path, name) = match tree {
            UseTree::Path(path) => return self.use_tree(&path.tree, &with(&path.ident), public),
            UseTree::Group(group) => {
                let each = |tree| self.use_tree(tree, prefix, public);
                return group.items.iter().for_each(each);
            }
            UseTree::Name(name) => (with(&name.ident), with(&name.ident).pop()),
            UseTree::Rename(name) => (with(&name.ident), Some(name.rename.to_string())),
            UseTree::Glob(_) => (with(&"*"), None),
        };
        let name = name.unwrap_or_default();
        self.know(name.clone(), path.clone());
        if public {
            self.shown.push((self.module.clone(), name, path));
        } else {
            self.paths
                .push((self.module.clone(), path, line(tree.span())));
        }
    }

    /// Paths among tokens that nobody has parsed: of macros and attributes.
    fn tokens(&mut self, stream: TokenStream) {
        use TokenTree::{Group, Ident, Punct};
        let all: Vec<TokenTree> = stream.into_iter().collect();
        let mut rest = &all[..];
        while let [token, behind @ ..] = rest {
            rest = behind;
            match (token, behind) {
                (Group(group), _) => self.tokens(group.stream()),
                (Punct(dot), [Ident(name), ..]) if dot.as_char() == '.' => self.method(name),
                (Ident(first), _) => {
                    let mut path = vec![first.to_string()];
                    while let [Punct(a), Punct(b), Ident(next), behind @ ..] = rest
                        && (a.as_char(), b.as_char()) == (':', ':')
                    {
                        path.push(next.to_string());
                        rest = behind;
                    }
                    self.mention(path, first);
                }
                _ => {}
            }
        }
    }

    /// Whether an item is only for tests, whose lines don't count then.
    fn passes_over(&mut self, attributes: &[Attribute], span: Span) -> bool {
        let over = only_for_tests(attributes);
        if over {
            self.test_lines.extend(span.start().line..=span.end().line);
        }
        over
    }
}

/// Goes into a node, unless it is only for tests.
macro_rules! visit_what_is_built {
    ($($visit:ident($node:ident);)*) => {$(
        fn $visit(&mut self, node: &'a syn::$node) {
            if !self.passes_over(&node.attrs, node.span()) {
                visit::$visit(self, node);
            }
        }
    )*};
}

impl<'a> Visit<'a> for Reader {
    visit_what_is_built! {
        visit_item_const(ItemConst);
        visit_item_enum(ItemEnum);
        visit_item_fn(ItemFn);
        visit_item_impl(ItemImpl);
        visit_item_macro(ItemMacro);
        visit_item_static(ItemStatic);
        visit_item_struct(ItemStruct);
        visit_item_trait(ItemTrait);
        visit_item_type(ItemType);
        visit_impl_item_const(ImplItemConst);
        visit_impl_item_fn(ImplItemFn);
        visit_trait_item_fn(TraitItemFn);
        visit_field(Field);
        visit_field_value(FieldValue);
        visit_variant(Variant);
        visit_arm(Arm);
        visit_local(Local);
        visit_expr_block(ExprBlock);
        visit_expr_call(ExprCall);
        visit_stmt_macro(StmtMacro);
    }

    fn visit_item_mod(&mut self, node: &'a syn::ItemMod) {
        let inside = [&self.module[..], &[node.ident.to_string()]].concat();
        if self.passes_over(&node.attrs, node.span()) {
            if node.content.is_none() {
                self.test_modules.push(inside);
            }
            return;
        }
        let name = node.ident.to_string();
        self.know(name.clone(), vec!["self".to_owned(), name]);
        let outside = std::mem::replace(&mut self.module, inside);
        visit::visit_item_mod(self, node);
        self.module = outside;
    }

    fn visit_item_use(&mut self, node: &'a syn::ItemUse) {
        if !self.passes_over(&node.attrs, node.span()) {
            let public = !matches!(node.vis, Visibility::Inherited);
            self.use_tree(&node.tree, &[], public);
        }
    }

    fn visit_expr_method_call(&mut self, node: &'a syn::ExprMethodCall) {
        self.method(&node.method);
        visit::visit_expr_method_call(self, node);
    }

    fn visit_path(&mut self, node: &'a syn::Path) {
        let parts = node.segments.iter().map(|part| part.ident.to_string());
        self.mention(parts.collect(), &node.segments[0].ident);
        visit::visit_path(self, node);
    }

    fn visit_macro(&mut self, node: &'a syn::Macro) {
        visit::visit_macro(self, node);
        self.tokens(node.tokens.clone());
    }

    fn visit_meta_list(&mut self, node: &'a syn::MetaList) {
        visit::visit_meta_list(self, node);
        self.tokens(node.tokens.clone());
    }

    /// `pub(in crate::x)` uses nothing of x.
    fn visit_visibility(&mut self, _: &'a Visibility) {}
}

fn line(span: Span) -> usize {
    span.start().line
}

/// `#[cfg(test)]` and `#[cfg(all(test, …))]`; what is for tests and others (`any`) is built.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    fn test(meta: &Meta) -> bool {
        match meta {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => list
                .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
                .is_ok_and(|all| all.iter().any(test)),
            _ => false,
        }
    }
    let cfg = |attribute: &Attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<Meta>().is_ok_and(|meta| test(&meta))
    };
    attributes.iter().any(cfg)
}
