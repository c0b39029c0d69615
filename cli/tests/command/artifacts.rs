//! Compiling, looking at what came out, and refusing what is damaged.
use crate::support::{Folder, SMALL};
use lolm_ir::artifact::FORMAT;

#[test]
fn counts_are_those_of_the_published_sizes() {
    let f = Folder::new("counts");
    for (name, count) in [("lolm-20m", 20_466_880u64), ("lolm-149m", 148_705_920), ("lolm-1.6b", 1_568_085_569)] {
        let json = f.lolm(&format!("inspect {name} --json")).json();
        assert_eq!(json["parameters"]["total"].as_u64(), Some(count), "{name}");
        let parts = json["parameters"]["parts"].as_array().unwrap();
        let sum: u64 = parts.iter().map(|p| p["parameters"].as_u64().unwrap()).sum();
        assert_eq!(sum, count + json["parameters"]["loss_heads"].as_u64().unwrap());
    }
    assert!(f.lolm("inspect lolm-1.6b").ok().contains("1,568,085,569 parameters"));
}

#[test]
fn every_stage_can_be_seen_and_read_back() {
    let f = Folder::new("stages");
    let stages = "graph,raised,rewritten,differentiated,expanded,kernels,plan,schedule,clif,asm";
    f.lolm(&format!("compile lolm-demo {SMALL} --programs train --emit {stages} --dump dump -o a.lolm")).ok();
    for stage in ["graph", "raised", "rewritten", "differentiated", "expanded"] {
        let name = format!("dump/train_2x16.{stage}.ir");
        assert_eq!(f.lolm(&format!("opt {name}")).ok(), f.text(&name), "{name}");
    }
    for name in ["kernels.ir", "train_2x16.plan", "kernels.schedule", "kernels.clif", "kernels.asm"] {
        assert!(!f.read(&format!("dump/{name}")).is_empty(), "{name}");
    }
    let raised = f.lolm("opt dump/train_2x16.graph.ir --pass raise").ok();
    assert!(raised.contains("selective_scan") && raised.contains("attention"));
    let again = f.lolm("opt dump/train_2x16.graph.ir --pass canonicalize,raise,expand-all,canonicalize").ok();
    assert!(!again.contains("selective_scan"));
    f.write("bad.ir", "func @x\n%0: f32[] = sine 1.0\n");
    f.lolm("opt bad.ir").fails(&["in bad.ir", "2:"]);
    let pictures =
        format!("inspect lolm-demo {SMALL} --stage raise --programs forward --svg g.svg --dot g.dot --scope gate");
    f.lolm(&pictures).ok();
    assert!(f.text("g.svg").contains("sigmoid") && f.text("g.dot").starts_with("digraph"));
    f.lolm(&format!("inspect lolm-demo {SMALL} --stage plan --svg p.svg")).ok();
    assert!(f.text("p.svg").ends_with("</svg>\n"));
    let kernels = f.lolm(&format!("inspect lolm-demo {SMALL} --stage kernels --json")).json();
    assert!(kernels.as_array().unwrap().iter().all(|k| k["launches"].as_u64() > Some(0)));
}

/// The schedule of a kernel for a GPU is in its PTX, which an artifact shows.
#[test]
fn an_artifact_for_a_gpu_shows_its_ptx() {
    let f = Folder::new("ptx");
    f.lolm(&format!("compile lolm-demo {SMALL} --target cuda --programs decode -o gpu.lolm")).ok();
    let table = f.lolm("inspect gpu.lolm --stage kernels").ok();
    assert!(table.contains("threads") && table.contains("rsqrt"), "{table}");
    // What ptxas knows, or that it is not there to be asked.
    assert!(table.contains("registers") && table.contains("shared"), "{table}");
    let text = f.lolm("inspect gpu.lolm --stage kernels --text --kernel rsqrt").ok();
    assert!(text.starts_with(".visible .entry") && text.contains("sqrt.rn.f32"), "{text}");
    assert!(!text.contains("gelu"));
    f.lolm("inspect gpu.lolm --stage kernels --text --kernel nobody").fails(&["no kernel", "nobody"]);
    f.lolm(&format!("compile lolm-demo {SMALL} --programs decode -o cpu.lolm")).ok();
    f.lolm("inspect cpu.lolm --stage kernels --text").fails(&["x86-64-v3", "--emit"]);
}

#[test]
fn two_compilations_give_the_same_bytes() {
    let f = Folder::new("bytes");
    f.lolm(&format!("compile lolm-demo {SMALL} -o a.lolm")).ok();
    f.lolm(&format!("compile lolm-demo {SMALL} -o b.lolm")).ok();
    assert!(f.read("a.lolm") == f.read("b.lolm"));
    let names = |json: &serde_json::Value| {
        let programs = json["programs"].as_array().unwrap();
        programs.iter().map(|p| p["program"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let json = f.lolm("inspect a.lolm --json").json();
    assert_eq!(names(&json), ["train_2x16", "eval_2x16", "prefill_4", "decode"]);
    assert!(f.lolm("inspect a.lolm --stage spec").ok().contains("d_model = 16\n"));
    let dry = f.lolm(&format!("compile lolm-demo {SMALL} --dry-run --json -o c.lolm")).json();
    assert_eq!(names(&dry), names(&json));
    assert!(!f.path("c.lolm").exists() && dry["programs"][0]["flops"].as_u64() > Some(0));
}

#[test]
fn weights_in_bf16_take_half_the_memory_and_do_not_train() {
    let f = Folder::new("bf16");
    let dry = |more: &str| f.lolm(&format!("compile lolm-demo {SMALL} --dry-run --json {more}")).json();
    let (whole, half) = (dry("--programs eval,prefill,decode"), dry("--weights-dtype bf16"));
    let names = |json: &serde_json::Value| json["programs"].as_array().unwrap().len();
    assert_eq!(names(&whole), names(&half));
    let bytes = |json: &serde_json::Value| json["memory"]["parameters"].as_f64().unwrap();
    assert!((0.5..0.7).contains(&(bytes(&half) / bytes(&whole))), "{} of {}", bytes(&half), bytes(&whole));
    f.lolm(&format!("compile lolm-demo {SMALL} --weights-dtype bf16 --programs train"))
        .fails(&["program train_2x16 trains", "bf16"]);
}

#[test]
fn damaged_artifacts_are_refused() {
    let f = Folder::new("damage");
    f.lolm(&format!("compile lolm-demo {SMALL} --programs decode -o a.lolm")).ok();
    let whole = f.read("a.lolm");
    f.write("cut.lolm", &whole[..whole.len() - 1]);
    f.lolm("inspect cut.lolm").fails(&["cannot use cut.lolm", "not a whole artifact"]);
    for (at, name) in [(20, "table"), (whole.len() / 2, "middle"), (whole.len() - 1, "end")] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        f.write(name, &bytes);
        f.lolm(&format!("inspect {name}")).fails(&["not a whole artifact"]);
        f.lolm(&format!("generate {name} -p x --weights .")).fails(&["not a whole artifact"]);
    }
    let mut version = whole.clone();
    version[8] += 1;
    f.write("version.lolm", &version);
    f.lolm("inspect version.lolm").fails(&[&format!("format {}, expected {FORMAT}", FORMAT + 1)]);
    f.lolm("eval a.lolm --data a.lolm").fails(&["holds no weights", "--weights"]);
    f.lolm("compile a.lolm").fails(&["is an artifact, and a spec is needed"]);
    f.lolm("inspect a.lolm --stage raise").fails(&["holds no graphs"]);
    f.write("text", "hello");
    f.lolm("generate text -p x").fails(&["text is not an artifact"]);
    f.lolm("generate nowhere -p x").fails(&["nowhere is not an artifact"]);
}

#[test]
fn shells_and_manuals_know_every_subcommand() {
    let f = Folder::new("manual");
    for (shell, start) in [("bash", "_lolm()"), ("zsh", "#compdef lolm"), ("fish", "# Print an optspec")] {
        let text = f.lolm(&format!("completions {shell}")).ok();
        assert!(text.starts_with(start) && text.contains("generate"), "{shell}: {text}");
    }
    f.lolm("man pages").ok();
    assert!(f.text("pages/lolm.1").contains("lolm\\-train") && f.text("pages/lolm-compile.1").contains("precision"));
    let unknown = f.lolm("completions tcsh");
    assert!(unknown.code() == Some(2) && unknown.stderr().contains("zsh"), "{}", unknown.stderr());
}
