//! The one printer of PTX: an entry as text. Registers are declared by class, and the kernel's line stands as a comment
//! above the instructions that serve it.
use super::inst::*;
use lolm_ir::kernel::{KValue, Kernel};
use std::fmt::Write;

const DYNAMIC_SHARED: &str = "dynamic_shared";

/// What stands before the entries of a module.
pub fn preamble(version: &str, target: &str, dynamic: bool) -> String {
    let shared = if dynamic { format!(".extern .shared .align 128 .b8 {DYNAMIC_SHARED}[];\n") } else { String::new() };
    format!(".version {version}\n.target {target}\n.address_size 64\n{shared}")
}

/// An entry as text, with the lines of its kernel.
pub fn entry(e: &Entry, k: &Kernel) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = header(&mut out, e);
    for inst in &e.body {
        match inst.op {
            Op::Note(line) => out.push_str(&format!("\n    // {}\n", k.line(KValue(line)))),
            Op::Label(l) => out.push_str(&format!("{}:\n", label(l))),
            _ => out.push_str(&format!("    {};\n", instruction(inst))),
        }
    }
    out.push_str("}\n");
    out
}

fn header(out: &mut String, e: &Entry) -> std::fmt::Result {
    let params: Vec<String> = (0..e.params).map(|i| format!("\n    .param .u64 {}", param(i))).collect();
    writeln!(out, ".visible .entry {}({}\n)", e.name, params.join(","))?;
    // Where one block a processor is enough that is said too, or ptxas may rather spill than use a register more.
    writeln!(out, ".maxntid {}, 1, 1\n.minnctapersm {}\n{{", e.threads, e.blocks)?;
    for (class, n) in Class::ALL.iter().zip(e.registers).filter(|(_, n)| *n > 0) {
        writeln!(out, "    .reg .{} {}<{n}>;", class_name(*class), prefix(*class))?;
    }
    match e.shared {
        Shared::Static(0) => {}
        Shared::Static(bytes) => writeln!(out, "    .shared .align 128 .b8 shared[{bytes}];")?,
        // Dynamic shared memory is declared once, before all entries.
        Shared::Dynamic => {}
    }
    Ok(())
}

fn class_name(c: Class) -> &'static str {
    match c {
        Class::Pred => "pred",
        Class::B16 => "b16",
        Class::B32 => "b32",
        Class::B64 => "b64",
        Class::F32 => "f32",
    }
}

fn prefix(c: Class) -> &'static str {
    match c {
        Class::Pred => "%p",
        Class::B16 => "%h",
        Class::B32 => "%r",
        Class::B64 => "%d",
        Class::F32 => "%f",
    }
}

fn reg(r: Reg) -> String {
    format!("{}{}", prefix(r.class), r.number)
}
fn group(regs: &[Reg]) -> String {
    let regs: Vec<String> = regs.iter().map(|r| reg(*r)).collect();
    format!("{{{}}}", regs.join(", "))
}
fn param(i: u32) -> String {
    format!("p{i}")
}
fn label(l: Label) -> String {
    format!("$L{}", l.0)
}

fn src(s: Src) -> String {
    match s {
        Src::Reg(r) => reg(r),
        Src::F32(bits) => format!("0f{bits:08X}"),
        Src::Int(x) => x.to_string(),
        Src::Special(Special::Tid) => "%tid.x".into(),
        Src::Special(Special::Block) => "%ctaid.x".into(),
        Src::Shared => "shared".into(),
        Src::DynamicShared => DYNAMIC_SHARED.into(),
    }
}

fn ty(t: Type) -> &'static str {
    match t {
        Type::Pred => "pred",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::B16 => "b16",
        Type::Bf16 => "bf16",
        Type::B32 => "b32",
        Type::U32 => "u32",
        Type::S32 => "s32",
        Type::F32 => "f32",
        Type::B64 => "b64",
        Type::U64 => "u64",
        Type::S64 => "s64",
    }
}

fn space(s: Space) -> &'static str {
    match s {
        Space::Global => "global",
        Space::ReadOnly => "global.nc",
        Space::Shared => "shared",
    }
}

fn address(a: Address) -> String {
    match a.offset {
        0 => format!("[{}]", reg(a.base)),
        o => format!("[{}+{o}]", reg(a.base)),
    }
}

fn unary(op: UnOp) -> &'static str {
    match op {
        UnOp::Neg => "neg",
        UnOp::Abs => "abs",
        UnOp::Not => "not",
        UnOp::SqrtRn => "sqrt.rn",
        UnOp::Ex2 => "ex2.approx",
        UnOp::Ex2Flushed => "ex2.approx.ftz",
    }
}

fn binary(op: BinOp) -> &'static str {
    match op {
        BinOp::Add => "add",
        BinOp::Sub => "sub",
        BinOp::MulLo => "mul.lo",
        BinOp::MulHi => "mul.hi",
        BinOp::MulWide => "mul.wide",
        BinOp::Div => "div",
        BinOp::Min => "min",
        BinOp::Max => "max",
        BinOp::AddRn => "add.rn",
        BinOp::SubRn => "sub.rn",
        BinOp::MulRn => "mul.rn",
        BinOp::DivRn => "div.rn",
        BinOp::MinNan => "min.NaN",
        BinOp::MaxNan => "max.NaN",
        BinOp::And => "and",
        BinOp::Or => "or",
        BinOp::Xor => "xor",
        BinOp::Shl => "shl",
        BinOp::Shr => "shr",
    }
}

fn cmp(c: Cmp) -> &'static str {
    match c {
        Cmp::Eq => "eq",
        Cmp::Ne => "ne",
        Cmp::Neu => "neu",
        Cmp::Lt => "lt",
        Cmp::Le => "le",
        Cmp::Gt => "gt",
        Cmp::Ge => "ge",
    }
}

fn rounding(r: Rounding) -> &'static str {
    match r {
        Rounding::None => "",
        Rounding::Rn => ".rn",
        Rounding::Rzi => ".rzi",
        Rounding::Rpi => ".rpi",
    }
}

fn shuffle(s: Shuffle) -> &'static str {
    match s {
        Shuffle::Idx => "idx",
        Shuffle::Bfly => "bfly",
        Shuffle::Up => "up",
    }
}

fn instruction(inst: &Inst) -> String {
    let text = operation(&inst.op);
    match inst.guard {
        None => text,
        Some((p, true)) => format!("@{} {text}", reg(p)),
        Some((p, false)) => format!("@!{} {text}", reg(p)),
    }
}

fn operation(op: &Op) -> String {
    match *op {
        Op::Mov { ty: t, d, a } => format!("mov.{} {}, {}", ty(t), reg(d), src(a)),
        Op::Unary { op, ty: t, d, a } => format!("{}.{} {}, {}", unary(op), ty(t), reg(d), src(a)),
        Op::Binary { op, ty: t, d, a, b } => {
            format!("{}.{} {}, {}, {}", binary(op), ty(t), reg(d), src(a), src(b))
        }
        Op::Fma { d, a, b, c } => format!("fma.rn.f32 {}, {}, {}, {}", reg(d), src(a), src(b), src(c)),
        Op::Setp { cmp: c, ty: t, d, a, b } => {
            format!("setp.{}.{} {}, {}, {}", cmp(c), ty(t), reg(d), src(a), src(b))
        }
        Op::Selp { ty: t, d, a, b, p } => {
            format!("selp.{} {}, {}, {}, {}", ty(t), reg(d), src(a), src(b), reg(p))
        }
        Op::Cvt { to, from, rounding: r, d, a } => {
            format!("cvt{}.{}.{} {}, {}", rounding(r), ty(to), ty(from), reg(d), src(a))
        }
        Op::LdParam { d, param: p } => format!("ld.param.u64 {}, [{}]", reg(d), param(p)),
        Op::ToGlobal { d, a } => format!("cvta.to.global.u64 {}, {}", reg(d), reg(a)),
        Op::Ld { space: s, ty: t, d, at } => format!("ld.{}.{} {}, {}", space(s), ty(t), reg(d), address(at)),
        Op::St { space: s, ty: t, a, at } => format!("st.{}.{} {}, {}", space(s), ty(t), address(at), reg(a)),
        Op::Ld4 { space: s, ty: t, d, at } => format!("ld.{}.v4.{} {}, {}", space(s), ty(t), group(&d), address(at)),
        Op::St2 { space: s, a, at } => format!("st.{}.v2.b32 {}, {}", space(s), address(at), group(&a)),
        Op::St4 { space: s, a, at } => format!("st.{}.v4.b32 {}, {}", space(s), address(at), group(&a)),
        Op::Ld2 { space: s, ty: t, d, at } => format!("ld.{}.v2.{} {}, {}", space(s), ty(t), group(&d), address(at)),
        Op::CpAsync { to, from, read } => {
            let read = read.map_or(String::new(), |r| format!(", {}", reg(r)));
            format!("cp.async.cg.shared.global {}, {}, 16{read}", address(to), address(from))
        }
        Op::CpCommit => "cp.async.commit_group".into(),
        Op::CpWait(n) => format!("cp.async.wait_group {n}"),
        Op::Ldmatrix { transposed, d, at } => {
            let trans = if transposed { ".trans" } else { "" };
            format!("ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {}, {}", group(&d), address(at))
        }
        Op::Mma { d, a, b } => {
            let (d, a, b) = (group(&d), group(&a), group(&b));
            format!("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {d}, {a}, {b}, {d}")
        }
        Op::CvtPair { d, high, low } => format!("cvt.rn.bf16x2.f32 {}, {}, {}", reg(d), src(high), src(low)),
        Op::Shfl { how, d, a, lane } => {
            let last = if how == Shuffle::Up { 0 } else { 31 };
            format!("shfl.sync.{}.b32 {}, {}, {}, {last}, -1", shuffle(how), reg(d), reg(a), src(lane))
        }
        Op::Any { d, a } => format!("vote.sync.any.pred {}, {}, -1", reg(d), reg(a)),
        Op::AddShared { d: Some(d), a, at } => {
            format!("atom.shared.add.u32 {}, {}, {}", reg(d), address(at), src(a))
        }
        Op::AddShared { d: None, a, at } => format!("red.shared.add.u32 {}, {}", address(at), src(a)),
        Op::SyncWarp => "bar.warp.sync -1".into(),
        Op::SyncBlock => "bar.sync 0".into(),
        Op::Bra { to } => format!("bra.uni {}", label(to)),
        Op::Ret => "ret".into(),
        Op::Label(l) => label(l),
        Op::Note(n) => format!("// %{n}"),
    }
}
