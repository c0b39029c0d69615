//! The rules of raising, as rows: name, what is written, what it is, and when.
//!
//! Laws: a row is an equality of real numbers, true for every value its variables may take, within its conditions; each row is
//! checked on random tensors, and a row that never fires fails the test. A row that moves a term past an axis says
//! `Absent`. Both sides have the same type or the row does not apply. Commutativity is in the e-graph for add, mul, max,
//! min, eq, and, dot; associativity for mul alone (of add it explodes).
use crate::egraph::rule::{Cond::*, Row, given, row};

/// Every row, in the order in which they are tried.
pub fn all() -> Vec<Row> {
    [
        algebra(),
        elementwise(),
        norms(),
        softmax(),
        attention(),
        rope(),
        scan(),
        recurrence(),
        mix(),
        conv(),
        cross_entropy(),
        routed(),
    ]
    .concat()
}

/// Commutativity, associativity of mul, and one spelling of each thing that has several.
#[rustfmt::skip]
fn algebra() -> Vec<Row> {
    vec![
        row("add-comm",       "(add ?a ?b)",                          "(add ?b ?a)",                    []),
        row("mul-comm",       "(mul ?a ?b)",                          "(mul ?b ?a)",                    []),
        row("max-comm",       "(max ?a ?b)",                          "(max ?b ?a)",                    []),
        row("min-comm",       "(min ?a ?b)",                          "(min ?b ?a)",                    []),
        row("eq-comm",        "(eq ?a ?b)",                           "(eq ?b ?a)",                     []),
        row("and-comm",       "(and ?a ?b)",                          "(and ?b ?a)",                    []),
        row("dot-comm",       "(dot ?k ?a ?b)",                       "(dot ?k ?b ?a)",                 []),
        row("mul-assoc",      "(mul (mul ?a ?b) ?c)",                 "(mul ?a (mul ?b ?c))",           []),
        row("mul-assoc-back", "(mul ?a (mul ?b ?c))",                 "(mul (mul ?a ?b) ?c)",           []),
        row("add-zero",       "(add ?x 0)",                           "?x",                             []),
        row("mul-one",        "(mul ?x 1)",                           "?x",                             []),
        row("div-const",      "(div ?x ?c)",                          "(mul ?x (div 1 ?c))",            [Constant("?c")]),
        row("div-recip",      "(mul ?x (div 1 ?y))",                  "(div ?x ?y)",                    []),
        row("div-sqrt",       "(div ?x (sqrt ?y))",                   "(mul ?x (rsqrt ?y))",            []),
        row("recip-sqrt",     "(div 1 (sqrt ?y))",                    "(rsqrt ?y)",                     []),
        row("sqrt-recip",     "(sqrt (div 1 ?y))",                    "(rsqrt ?y)",                     []),
        row("neg-mul",        "(mul -1 ?x)",                          "(neg ?x)",                       []),
        row("neg-zero-sub",   "(sub 0 ?x)",                           "(neg ?x)",                       []),
        row("neg-sub",        "(neg (sub ?a ?b))",                    "(sub ?b ?a)",                    []),
        row("neg-neg",        "(neg (neg ?x))",                       "?x",                             []),
        row("add-neg",        "(add ?a (neg ?b))",                    "(sub ?a ?b)",                    []),
        row("neg-into-fixed", "(neg (mul ?a ?b))",                    "(mul ?a (neg ?b))",              [Fixed("?b"), Fed("?a")]),
        row("mask-mul",       "(mul (cast f32 ?m) ?x)",               "(select ?m ?x 0)",               []),
        row("select-not",     "(select (not ?m) ?a ?b)",              "(select ?m ?b ?a)",              []),
        row("select-lt",      "(select (lt ?a ?b) ?x ?y)",            "(select (le ?b ?a) ?y ?x)",      []),
        row("select-neg",     "(neg (select ?m ?x 0))",               "(select ?m (neg ?x) 0)",         []),
        row("select-mul",     "(mul ?c (select ?m ?x 0))",            "(select ?m (mul ?c ?x) 0)",      []),
        row("mask-bias",      "(add ?x (select ?m 0 -inf))",          "(select ?m ?x -inf)",            []),
        row("mask-bias-flip", "(add ?x (select ?m -inf 0))",          "(select ?m -inf ?x)",            []),
        row("mask-exp",       "(select ?m (exp ?x) 0)",               "(exp (select ?m ?x -inf))",      []),
        row("mask-shift",     "(select ?m (sub ?x ?c) -inf)",         "(sub (select ?m ?x -inf) ?c)",   []),
        row("sum-mul",        "(sum ?k (mul ?a ?b))",                 "(dot ?k ?a ?b)",                 [Has("?k", "?a"), Has("?k", "?b")]),
        row("dot-scale",      "(dot ?k (mul ?c ?a) ?b)",              "(mul ?c (dot ?k ?a ?b))",        [Constant("?c")]),
        row("rename-scale",   "(rename ?s ?t (mul ?c ?a))",           "(mul ?c (rename ?s ?t ?a))",     [Constant("?c")]),
        row("dot-at",         "(dot ?k ?a (at ?p ?i ?b))",            "(at ?p ?i (dot ?k ?a ?b))",      [Absent("?p", "?a")]),
    ]
}

/// Functions of one element.
#[rustfmt::skip]
fn elementwise() -> Vec<Row> {
    vec![
        row("sigmoid",        "(div 1 (add 1 (exp (neg ?x))))",                     "(sigmoid ?x)",   []),
        row("sigmoid-exp",    "(div (exp ?x) (add 1 (exp ?x)))",                    "(sigmoid ?x)",   []),
        row("sigmoid-tanh",   "(mul 0.5 (add 1 (tanh (mul 0.5 ?x))))",              "(sigmoid ?x)",   []),
        row("silu",           "(mul ?x (sigmoid ?x))",                              "(silu ?x)",      []),
        row("silu-div",       "(div ?x (add 1 (exp (neg ?x))))",                    "(silu ?x)",      []),
        row("gelu",           "(mul 0.5 (mul ?x (add 1 (erf (mul ?c ?x)))))",       "(gelu ?x)",      [Near("?c", 0.5f64.sqrt())]),
        row("gelu-cdf",       "(mul ?x (add 0.5 (mul 0.5 (erf (mul ?c ?x)))))",     "(gelu ?x)",      [Near("?c", 0.5f64.sqrt())]),
        row("gelu-tanh",      "(mul 0.5 (mul ?x (add 1 (tanh (mul ?c (add ?x (mul ?k (mul ?x (mul ?x ?x)))))))))", "(gelu_tanh ?x)",
            [Near("?c", (2.0 / std::f64::consts::PI).sqrt()), Near("?k", 0.044715)]),
        row("gelu-tanh-square", "(mul 0.5 (mul ?x (add 1 (tanh (mul ?c (mul ?x (add 1 (mul ?k (mul ?x ?x)))))))))", "(gelu_tanh ?x)",
            [Near("?c", (2.0 / std::f64::consts::PI).sqrt()), Near("?k", 0.044715)]),
        row("softplus",       "(log (add 1 (exp ?x)))",                             "(softplus ?x)",  []),
        row("softplus-safe",  "(add (max ?x 0) (log (add 1 (exp (neg (abs ?x))))))", "(softplus ?x)", []),
        row("softplus-pair",  "(add ?m (log (add (exp (sub ?x ?m)) (exp (neg ?m)))))", "(softplus ?x)", []),
        row("softplus-sigmoid", "(neg (log (sigmoid (neg ?x))))",                   "(softplus ?x)",  []),
        row("softplus-linear", "(select (le ?x ?c) (softplus ?x) ?x)",              "(softplus ?x)",  [AtLeast("?c", 20.0)]),
    ]
}

#[rustfmt::skip]
fn norms() -> Vec<Row> {
    vec![
        row("mean",           "(mul ?c (sum ?d ?x))",                               "(mean ?d ?x)",
            [RecipSize("?c", "?d")]),
        row("mean-dot",       "(mul ?c (dot ?d ?x ?x))",                            "(mean ?d (mul ?x ?x))",
            [RecipSize("?c", "?d")]),
        row("variance",       "(sub (mean ?d (mul ?x ?x)) (mul (mean ?d ?x) (mean ?d ?x)))",
                              "(mean ?d (mul (sub ?x (mean ?d ?x)) (sub ?x (mean ?d ?x))))",
            []),
        row("rms",            "(mul ?x (rsqrt (add ?e (mean ?d (mul ?x ?x)))))",    "(rms_norm ?d ?e ?x none)",
            [Constant("?e"), Single("?d")]),
        row("layer-norm",     "(rms_norm ?d ?e (sub ?x (mean ?d ?x)) none)",        "(layer_norm ?d ?e ?x none none)",
            []),
        row("layer-norm-map", "(add ?b (mul ?w (layer_norm ?d ?e ?x none none)))",  "(layer_norm ?d ?e ?x ?w ?b)",
            [Within("?d", "?w"), Has("?d", "?w"), Within("?d", "?b"), Has("?d", "?b")]),
        row("rms-map",        "(mul ?w (rms_norm ?d ?e ?x none))",                  "(rms_norm ?d ?e ?x ?w)",
            [Within("?d", "?w"), Has("?d", "?w")]),
    ]
}

#[rustfmt::skip]
fn softmax() -> Vec<Row> {
    vec![
        row("softmax",        "(div (exp ?x) (sum ?k (exp ?x)))",                   "(softmax ?k ?x)",           [Single("?k")]),
        row("softmax-shift",  "(softmax ?k (sub ?x ?c))",                           "(softmax ?k ?x)",           [Absent("?k", "?c")]),
        row("softmax-lse",    "(exp (sub ?x (logsumexp ?k ?x)))",                   "(softmax ?k ?x)",           []),
        row("log-softmax",    "(log (softmax ?k ?x))",                              "(sub ?x (logsumexp ?k ?x))", []),
        row("lse",            "(log (sum ?k (exp ?x)))",                            "(logsumexp ?k ?x)",         [Single("?k")]),
        row("lse-shift",      "(add ?c (logsumexp ?k (sub ?x ?c)))",                "(logsumexp ?k ?x)",         [Absent("?k", "?c")]),
        row("lsm-shift",      "(sub (sub ?x ?c) (logsumexp ?k (sub ?x ?c)))",       "(sub ?x (logsumexp ?k ?x))", [Absent("?k", "?c")]),
        row("lsm-shift-late", "(sub (sub ?x (logsumexp ?k (sub ?x ?c))) ?c)",       "(sub ?x (logsumexp ?k ?x))", [Absent("?k", "?c")]),
    ]
}

/// Attention by steps: who is visible, the weights, the result. Other masks and roles stay softmax and dots.
#[rustfmt::skip]
fn attention() -> Vec<Row> {
    vec![
        row("causal",         "(le (iota ?s) ?p)",                                  "(visible ?s ?p none)",      [Absent("?s", "?p")]),
        row("causal-lt",      "(lt (iota ?s) (add 1i ?p))",                         "(visible ?s ?p none)",      [Absent("?s", "?p")]),
        row("causal-not",     "(not (lt ?p (iota ?s)))",                            "(visible ?s ?p none)",      [Absent("?s", "?p")]),
        row("causal-diff",    "(le 0i (sub ?p (iota ?s)))",                         "(visible ?s ?p none)",      [Absent("?s", "?p")]),
        row("hidden",         "(select (lt ?p (iota ?s)) ?a ?b)",                   "(select (visible ?s ?p none) ?b ?a)", [Absent("?s", "?p")]),
        row("window",         "(and (visible ?s ?p none) (lt (sub ?p (iota ?s)) ?w))", "(visible ?s ?p ?w)",     [Counts("?w")]),
        row("window-from",    "(and (visible ?s ?p none) (lt (sub ?p ?w) (iota ?s)))", "(visible ?s ?p ?w)",     [Counts("?w")]),
        row("window-within",  "(le (sub ?p (iota ?s)) ?w)",                         "(lt (sub ?p (iota ?s)) (add 1i ?w))", [Counts("?w")]),
        row("window-to",      "(and (visible ?s ?p none) (lt ?p (add ?w (iota ?s))))", "(visible ?s ?p ?w)",     [Counts("?w")]),

        // The same window over keys in a ring, of whose slots each has an age.
        row("age",            "(rem (sub ?p (iota ?s)) ?n)",                        "(age ?s ?p)",               [Length("?n", "?s"), Absent("?s", "?p")]),
        row("age-slots",      "(rem (sub (rem ?p ?n) ?x) ?n)",                      "(rem (sub ?p ?x) ?n)",      [Counts("?n")]),
        row("age-round",      "(rem (add ?n ?x) ?n)",                               "(rem ?x ?n)",               [Counts("?n")]),
        row("age-round-from", "(rem (sub (add ?n ?p) ?x) ?n)",                      "(rem (sub ?p ?x) ?n)",      [Counts("?n")]),
        row("age-within",     "(le (age ?s ?p) ?w)",                                "(lt (age ?s ?p) (add 1i ?w))", [Counts("?w")]),
        row("age-from",       "(lt (sub ?p ?w) (sub ?p (age ?s ?p)))",              "(lt (age ?s ?p) ?w)",       []),
        row("age-filled",     "(le 0i (sub ?p (age ?s ?p)))",                       "(le (age ?s ?p) ?p)",       []),
        row("age-filled-lt",  "(lt (age ?s ?p) (add 1i ?p))",                       "(le (age ?s ?p) ?p)",       []),
        row("age-filled-not", "(not (lt ?p (age ?s ?p)))",                          "(le (age ?s ?p) ?p)",       []),
        row("ring",           "(and (lt (age ?s ?p) ?w) (le (age ?s ?p) ?p))",      "(visible ?s ?p (ring ?w))", [Counts("?w")]),

        row("weights",        "(softmax ?s (select (visible ?s ?p ?w) (mul ?c (dot ?e ?q ?k)) -inf))",
                              "(weights ?s ?e ?c ?w ?q ?k ?p)",
            [Constant("?c"), Has("?s", "?k"), Absent("?s", "?q")]),
        row("weights-plain",  "(softmax ?s (select (visible ?s ?p ?w) (dot ?e ?q ?k) -inf))",
                              "(weights ?s ?e 1 ?w ?q ?k ?p)",
            [Has("?s", "?k"), Absent("?s", "?q")]),
        row("weights-all",    "(softmax ?s (mul ?c (dot ?e ?q ?k)))",
                              "(weights ?s ?e ?c none ?q ?k none)",
            [Constant("?c"), Has("?s", "?k"), Absent("?s", "?q")]),
        row("weights-all-plain", "(softmax ?s (dot ?e ?q ?k))",
                              "(weights ?s ?e 1 none ?q ?k none)",
            [Has("?s", "?k"), Absent("?s", "?q")]),
        row("dropped",        "(select (le ?r (random ?l ?i ?seed ?step)) (mul ?c ?x) 0)",
                              "(dropped ?r ?l ?i ?seed ?step ?x)",
            [Keeps("?c", "?r")]),
        row("attention",      "(dot ?s (weights ?s ?e ?c ?w ?q ?k ?p) ?v)",
                              "(part #0 (attention ?s ?e ?c ?w none none ?q ?k ?v ?p none none))",
            [Has("?s", "?v"), Absent("?e", "?v")]),
        row("attention-drop", "(dot ?s (dropped ?r ?l ?i ?seed ?step (weights ?s ?e ?c ?w ?q ?k ?p)) ?v)",
                              "(part #0 (attention ?s ?e ?c ?w ?r ?i ?q ?k ?v ?p ?seed ?step))",
            [Has("?s", "?v"), Absent("?e", "?v")]),
    ]
}

#[rustfmt::skip]
fn rope() -> Vec<Row> {
    vec![
        row("rope-rotate",
            "(add (mul ?c ?x) (mul ?s (stack ?p (neg (at ?p #1 ?x)) (at ?p #0 ?x))))",
            "(rope ?p ?x ?c ?s)",
            [Absent("?p", "?c"), Absent("?p", "?s")]),
        row("rope-of-pair",
            "(stack ?p (sub (mul ?c ?x) (mul ?s ?y)) (add (mul ?s ?x) (mul ?c ?y)))",
            "(rope ?p (stack ?p ?x ?y) ?c ?s)",
            [Absent("?p", "?x")]),
        row("rope-scale",     "(rope ?p (mul ?a ?x) ?c ?s)",                        "(mul ?a (rope ?p ?x ?c ?s))", [Constant("?a")]),
        row("stack-at",       "(stack ?p (at ?p #0 ?x) (at ?p #1 ?x))",             "?x",                        []),
        row("at-stack-0",     "(at ?p #0 (stack ?p ?x ?y))",                        "?x",                        []),
        row("at-stack-1",     "(at ?p #1 (stack ?p ?x ?y))",                        "?y",                        []),
    ]
}

#[rustfmt::skip]
fn scan() -> Vec<Row> {
    vec![
        row("scan",
            "(dot ?n (linear_recurrence ?t false (exp (mul ?dt ?a)) (mul ?dt (mul ?b ?u)) ?init) ?c)",
            "(part #0 (selective_scan ?t ?n ?dt ?a ?b ?c ?u ?init))",
            [Has("?n", "?a"), Absent("?t", "?a"), Absent("?n", "?dt"), Absent("?n", "?u"), Has("?n", "?b"), Has("?n", "?c"),
             Shares("?n", "?a", "?b"), Shares("?n", "?a", "?c"), Single("?n")]),
        given("scan-last",
            "(selective_scan ?t ?n ?dt ?a ?b ?c ?u ?init)",
            "(at ?t (last ?t) (linear_recurrence ?t false (exp (mul ?dt ?a)) (mul ?dt (mul ?b ?u)) ?init))",
            "(part #1 (selective_scan ?t ?n ?dt ?a ?b ?c ?u ?init))"),
    ]
}

/// RG-LRU: the recurrence whose drive is scaled by the root of what the decay leaves. The slope of the root stands beside
/// its value behind stops, so that the two are one operation only together.
#[rustfmt::skip]
fn recurrence() -> Vec<Row> {
    vec![
        row("sqrt-bounded",
            "(add (stop_gradient (sqrt ?x)) (mul (stop_gradient (rsqrt (max ?c (mul 4 ?x)))) (sub ?x (stop_gradient ?x))))",
            "(sqrt_bounded ?x)",
            [Near("?c", 1e-6)]),
        row("gated",
            "(linear_recurrence ?t false (select ?r 0 (exp ?l)) (mul ?x (select ?r 1 (sqrt_bounded (sub 1 (exp (mul 2 ?l)))))) ?init)",
            "(part #0 (gated_recurrence ?t ?l ?x ?r ?init))",
            [Has("?t", "?l"), Has("?t", "?x")]),
        row("gated-scaled",
            "(linear_recurrence ?t false (select ?r 0 (exp (mul ?c ?y))) (mul ?x (select ?r 1 (sqrt_bounded (sub 1 (exp (mul ?d ?y)))))) ?init)",
            "(part #0 (gated_recurrence ?t (mul ?c ?y) ?x ?r ?init))",
            [Twice("?d", "?c"), Has("?t", "?y"), Has("?t", "?x")]),
        row("gated-square",
            "(linear_recurrence ?t false (select ?r 0 (exp ?l)) (mul ?x (select ?r 1 (sqrt_bounded (sub 1 (mul (exp ?l) (exp ?l)))))) ?init)",
            "(part #0 (gated_recurrence ?t ?l ?x ?r ?init))",
            [Has("?t", "?l"), Has("?t", "?x")]),
        given("gated-last",
            "(gated_recurrence ?t ?l ?x ?r ?init)",
            "(at ?t (last ?t) (part #0 (gated_recurrence ?t ?l ?x ?r ?init)))",
            "(part #1 (gated_recurrence ?t ?l ?x ?r ?init))"),
    ]
}

/// A gate with a value per element; the blends of an optimizer, by one number, are not mixes.
#[rustfmt::skip]
fn mix() -> Vec<Row> {
    vec![
        row("mix",            "(add (mul ?g ?a) (mul (sub 1 ?g) ?b))",              "(mix ?g ?a ?b)",            [Varies("?g")]),
        row("mix-lerp",       "(add ?b (mul ?g (sub ?a ?b)))",                      "(mix ?g ?a ?b)",            [Varies("?g")]),
        row("mix-back",       "(sub ?a (mul ?g (sub ?a ?b)))",                      "(mix ?g ?b ?a)",            [Varies("?g")]),
    ]
}

/// A causal convolution tap by tap, in any order of the taps; the last tap has no shift.
#[rustfmt::skip]
fn conv() -> Vec<Row> {
    vec![
        row("tap",            "(mul (shift ?t ?by ?x) (at ?k ?j ?w))",              "(taps ?t ?k (bit ?j) ?x ?w)",
            [Tap("?j", "?k", "?by"), Absent("?t", "?w"), Absent("?k", "?x")]),
        row("tap-last",       "(add (taps ?t ?k ?m ?x ?w) (mul ?x (at ?k ?j ?w)))", "(add (taps ?t ?k ?m ?x ?w) (taps ?t ?k (bit ?j) ?x ?w))",
            [IsLast("?j", "?k")]),
        row("taps",           "(add (taps ?t ?k ?m ?x ?w) (taps ?t ?k ?n ?x ?w))",  "(taps ?t ?k (union ?m ?n) ?x ?w)",
            [Disjoint("?m", "?n")]),
        row("taps-onto",      "(add (add ?y (taps ?t ?k ?m ?x ?w)) (taps ?t ?k ?n ?x ?w))",
                              "(add ?y (taps ?t ?k (union ?m ?n) ?x ?w))",
            [Disjoint("?m", "?n")]),
        row("tap-last-onto",  "(add (add ?y (taps ?t ?k ?m ?x ?w)) (mul ?x (at ?k ?j ?w)))",
                              "(add ?y (taps ?t ?k (union ?m (bit ?j)) ?x ?w))",
            [IsLast("?j", "?k"), Unset("?m", "?j")]),
        row("tap-last-under", "(add (add ?y (mul ?x (at ?k ?j ?w))) (taps ?t ?k ?m ?x ?w))",
                              "(add ?y (taps ?t ?k (union ?m (bit ?j)) ?x ?w))",
            [IsLast("?j", "?k"), Unset("?m", "?j")]),
        row("conv",           "(taps ?t ?k ?m ?x ?w)",                              "(causal_conv ?t ?k ?x ?w none)",
            [AllTaps("?m", "?k"), Single("?t"), Single("?k")]),
        row("conv-bias",      "(add ?b (causal_conv ?t ?k ?x ?w none))",            "(causal_conv ?t ?k ?x ?w ?b)",
            [Fixed("?b"), Narrower("?b", "?w"), Absent("?k", "?b")]),
    ]
}

/// The loss of a head. A target below 0 is ignored, and an index outside reads 0: so `lse - pick` is the loss only
/// under the mask of the target, or where no target is negative.
#[rustfmt::skip]
fn cross_entropy() -> Vec<Row> {
    vec![
        row("pick-sum",       "(sum ?v (select (eq (iota ?v) ?t) ?x 0))",           "(gather ?v ?x ?t)",
            [Absent("?v", "?t"), Has("?v", "?x")]),
        row("pick-dot",       "(dot ?v (cast f32 (eq (iota ?v) ?t)) ?x)",           "(gather ?v ?x ?t)",
            [Absent("?v", "?t")]),
        row("pick-masked",    "(select (le 0i ?t) (gather ?v ?x (max ?t 0i)) ?z)",  "(select (le 0i ?t) (gather ?v ?x ?t) ?z)",
            []),
        row("mask-neg",       "(select ?m (neg ?x) 0)",                             "(neg (select ?m ?x 0))",
            []),
        row("pick-log",       "(select (le 0i ?t) (gather ?v (sub ?x ?c) ?t) 0)",   "(select (le 0i ?t) (sub (gather ?v ?x ?t) ?c) 0)",
            [Absent("?v", "?c")]),
        row("head-loss",      "(select (le 0i ?t) (sub (logsumexp ?v (dot ?d ?o ?e)) (gather ?v (dot ?d ?o ?e) ?t)) 0)",
                              "(part #0 (cross_entropy ?v ?d none ?o ?e ?t))",
            [Has("?v", "?e"), Absent("?v", "?o")]),
        row("head-loss-all",  "(sub (logsumexp ?v (dot ?d ?o ?e)) (gather ?v (dot ?d ?o ?e) ?t))",
                              "(part #0 (cross_entropy ?v ?d none ?o ?e ?t))",
            [Has("?v", "?e"), Absent("?v", "?o"), NonNegative("?t")]),
        row("cap",            "(mul ?c (tanh (div ?x ?c)))",                        "(capped ?c ?x)",
            [Constant("?c")]),
        row("cap-recip",      "(mul ?c (tanh (mul ?r ?x)))",                        "(capped ?c ?x)",
            [Recip("?r", "?c")]),
        row("head-loss-capped",
            "(select (le 0i ?t) (sub (logsumexp ?v (capped ?c (dot ?d ?o ?e))) (gather ?v (capped ?c (dot ?d ?o ?e)) ?t)) 0)",
            "(part #0 (cross_entropy ?v ?d ?c ?o ?e ?t))",
            [Has("?v", "?e"), Absent("?v", "?o")]),
        row("head-loss-capped-all",
            "(sub (logsumexp ?v (capped ?c (dot ?d ?o ?e))) (gather ?v (capped ?c (dot ?d ?o ?e)) ?t))",
            "(part #0 (cross_entropy ?v ?d ?c ?o ?e ?t))",
            [Has("?v", "?e"), Absent("?v", "?o"), NonNegative("?t")]),
    ]
}

/// Mixtures of experts: each row times the matrix of its expert, whichever of the two is written first.
#[rustfmt::skip]
fn routed() -> Vec<Row> {
    vec![
        row("routed-dot",     "(dot ?d ?x (gather ?e ?w ?i))",                      "(routed_dot ?e ?d ?x ?w ?i)", []),
        row("routed-pick",    "(gather ?e (dot ?d ?x ?w) ?i)",                      "(routed_dot ?e ?d ?x ?w ?i)", [Absent("?e", "?x")]),
    ]
}
