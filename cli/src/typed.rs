//! What was typed: the arguments of the command and of its subcommands.
use crate::commands::*;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::Path;

/// Compiles hybrid Transformer/SSM language models ahead of time, trains them and generates with them.
#[derive(Parser, Debug)]
#[command(name = "lolm", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Demo(demo::Demo),
    Init(init::Init),
    Import(import::Import),
    Export(export::Export),
    Compile(compile::Compile),
    Train(train::Train),
    Eval(eval::Eval),
    Generate(generate::Generate),
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Man(man::Man),
    Opt(opt::Opt),
    Tokenizer(tokenizer::Tokenize),
}

impl Cli {
    pub fn chosen(self) -> Command {
        self.command
    }
}

/// The arguments of an executable that has a model behind it, as if it were served by its path.
pub fn serving(model: &Path, args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let at = args.len().min(1);
    args.splice(at..at, ["serve".into(), model.into()]);
    args
}

/// The arguments as clap reads them: with `demo` where no subcommand is given, and keys of the spec as `--set`.
pub fn arguments(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = rewrite(args);
    let general = ["-h", "--help", "-V", "--version", "help"];
    let named = args.get(1).and_then(|a| a.to_str()).is_some_and(|a| !a.starts_with('-') || general.contains(&a));
    if !named && !args.is_empty() {
        args.insert(1, "demo".into());
    }
    args
}

/// Turns `--training.steps 1000` and `--d_model=64` into `--set` arguments: a long option with a dot or an underscore in its
/// name is a key of the spec, as no option of ours has either.
fn rewrite(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = vec![];
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--") => {
                out.push(arg);
                out.extend(args.by_ref());
            }
            Some(text) if is_key(text) => {
                let text = &text[2..];
                let pair = match (text.contains('='), args.peek().and_then(|v| v.to_str())) {
                    (true, _) => text.to_string(),
                    (false, Some(value)) => {
                        let pair = format!("{text}={value}");
                        args.next();
                        pair
                    }
                    (false, None) => text.to_string(),
                };
                out.push(format!("--set={pair}").into());
            }
            _ => out.push(arg),
        }
    }
    out
}

fn is_key(arg: &str) -> bool {
    let Some(rest) = arg.strip_prefix("--") else { return false };
    let name = rest.split_once('=').map_or(rest, |(name, _)| name);
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    letters && name.contains(['.', '_']) && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(args: &[&str]) -> Vec<String> {
        rewrite(args.iter().map(OsString::from)).into_iter().map(|s| s.into_string().unwrap()).collect()
    }

    #[test]
    fn keys_of_the_spec_become_set_arguments() {
        assert_eq!(rewritten(&["compile", "x", "--training.steps", "9"]), ["compile", "x", "--set=training.steps=9"]);
        assert_eq!(
            rewritten(&["--d_model=64", "--gate.init_bias", "-1"]),
            ["--set=d_model=64", "--set=gate.init_bias=-1"]
        );
        // Without a value it is clap that says what is missing.
        assert_eq!(rewritten(&["--d_model"]), ["--set=d_model"]);
        for same in [&["--out", "a.b"][..], &["-p", "a_b", "--seed=1"], &["--", "--a.b", "1"], &["--top-k", "3"]] {
            assert_eq!(rewritten(same), same);
        }
    }

    #[test]
    fn an_executable_with_a_model_serves_it() {
        let args = ["./model", "--port", "0"].map(OsString::from).into_iter();
        assert_eq!(serving(Path::new("/bin/model"), args), ["./model", "serve", "/bin/model", "--port", "0"]);
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
