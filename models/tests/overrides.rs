//! Keys that are set from outside of the file, and specs that are written and read again.
use lolm_models::spec::{LIBRARY, Override, library, library_with};
use lolm_models::{Spec, SpecError};

fn demo(key: &str, value: &str) -> Result<Spec, SpecError> {
    library_with("lolm-demo", &[Override::new(key, value)]).unwrap()
}

#[test]
fn a_spec_that_is_written_reads_back() {
    for (name, _) in LIBRARY {
        let spec = library(name).unwrap().unwrap();
        assert_eq!(Spec::parse(name, &spec.to_string()).as_ref(), Ok(&spec), "{name}:\n{spec}");
    }
    for (key, value) in [("regime.enabled", "false"), ("optimizer.lr", "1e-30"), ("training.loss_limit", "1e20")] {
        let spec = demo(key, value).unwrap();
        assert_eq!(Spec::parse(key, &spec.to_string()).as_ref(), Ok(&spec), "{key}:\n{spec}");
    }
}

#[test]
fn keys_are_set_from_outside() {
    assert_eq!(demo("training.steps", "7").unwrap().training.steps, 7);
    assert_eq!(demo("d_ff", "64").unwrap().lolm().unwrap().d_ff, 64);
    assert_eq!(demo("optimizer.betas", "[0.5, 0.6]").unwrap().optimizer.betas, [0.5, 0.6]);
    assert_eq!(demo("optimizer.lr", "1").unwrap().optimizer.lr, 1.0);
    assert!(demo("gate.enabled", "false").unwrap().gate().is_none());
    // A bare word is a text, and a key that was not there may be set.
    let mamba = ["ssm.kind=mamba", "ssm.conv_kernel=4", "ssm.dt_rank=8"].map(|s| s.split_once('=').unwrap());
    let mamba: Vec<Override> = mamba.into_iter().map(|(k, v)| Override::new(k, v)).collect();
    let spec = library_with("lolm-demo", &mamba).unwrap().unwrap();
    assert!(matches!(spec.ssm().unwrap().kind, lolm_models::spec::SsmKind::Mamba { conv_kernel: 4, dt_rank: 8 }));
}

#[test]
fn wrong_keys_from_outside_are_refused_by_name() {
    let said = |key: &str, value: &str| demo(key, value).unwrap_err().to_string();
    assert!(said("training.stpes", "7").contains("did you mean `steps`?"));
    assert!(said("trainin.steps", "7").contains("did you mean `training`?"));
    assert_eq!(
        said("training.steps", "many"),
        "training.steps=many: `training.steps`: found \"many\", expected an integer from 1 to 1099511627776"
    );
    assert!(said("d_model.x", "7").contains("expected a section"));
    assert!(said("", "7").contains("there is no such key"));
    assert!(said("training.steps", "1\nseed = 2").contains("found \"1\nseed = 2\""));
}
