//! A GEMM tile of bf16: two stages of cp.async, ldmatrix from swizzled rows, mma.sync with f32 accumulators.
use super::HEADER;

/// c[m][n] = sum_k a[m][k]·b[k][n] in f32, a and b in bf16: parameters c, a, b, n, k (bytes are counted in the text).
/// A block of 64 threads makes 32×32 of c, each warp 16×32; k goes in steps of 16. Grid (n/32, m/32).
///
/// A stage is a tile of a, 32 rows of 32 bytes, and a tile of b, 16 rows of 64 bytes: 2048 bytes.
pub fn gemm() -> String {
    let mut t = HEADER.to_string()
        + r#"
.visible .entry gemm(.param .u64 c, .param .u64 a, .param .u64 b, .param .u32 n, .param .u32 k)
.reqntid 64, 1, 1
{
    .reg .pred %p<4>;
    .reg .b32 %r<64>;
    .reg .b64 %rd<16>;
    .reg .b32 %a<4>, %b<8>;
    .reg .f32 %c<16>;
    .reg .b32 %bx, %by;
    .shared .align 128 .b8 stages[4096];
    ld.param.u64 %rd1, [c];
    ld.param.u64 %rd2, [a];
    ld.param.u64 %rd3, [b];
    ld.param.u32 %r1, [n];
    ld.param.u32 %r2, [k];
    mov.u32 %r3, %tid.x;
    mov.u32 %bx, %ctaid.x;
    mov.u32 %by, %ctaid.y;
    mov.u32 %r4, stages;
    // a: thread t copies 16 bytes of row t/2, half t%2
    shr.u32 %r5, %r3, 1;
    and.b32 %r6, %r3, 1;
    mad.lo.u32 %r7, %by, 32, %r5;
    mul.lo.u32 %r8, %r7, %r2;
    mad.lo.u32 %r8, %r6, 8, %r8;
    mul.wide.u32 %rd4, %r8, 2;
    add.u64 %rd4, %rd2, %rd4;
    shl.b32 %r9, %r3, 4;
    add.u32 %r10, %r4, %r9;
    // b: thread t copies 16 bytes of row t/4, quarter t%4, swizzled by the row
    shr.u32 %r11, %r3, 2;
    and.b32 %r12, %r3, 3;
    mul.lo.u32 %r13, %r11, %r1;
    mad.lo.u32 %r13, %bx, 32, %r13;
    mad.lo.u32 %r13, %r12, 8, %r13;
    mul.wide.u32 %rd5, %r13, 2;
    add.u64 %rd5, %rd3, %rd5;
    shr.u32 %r14, %r11, 1;
    and.b32 %r14, %r14, 3;
    xor.b32 %r14, %r12, %r14;
    shl.b32 %r14, %r14, 4;
    mad.lo.u32 %r14, %r11, 64, %r14;
    add.u32 %r15, %r4, %r14;
    mul.wide.u32 %rd6, %r1, 32;          // 16 rows of b
    // ldmatrix of a: lane l reads row 16*warp + l%16, half l/16
    and.b32 %r16, %r3, 31;
    shr.u32 %r17, %r3, 5;
    and.b32 %r18, %r16, 15;
    mad.lo.u32 %r19, %r17, 16, %r18;
    shr.u32 %r20, %r16, 4;
    shl.b32 %r21, %r20, 4;
    mad.lo.u32 %r21, %r19, 32, %r21;
    add.u32 %r22, %r4, %r21;
    // ldmatrix of b: lane l reads row l%16, quarters l/16 and 2 + l/16
    shr.u32 %r23, %r18, 1;
    and.b32 %r23, %r23, 3;
    xor.b32 %r24, %r20, %r23;
    shl.b32 %r24, %r24, 4;
    mad.lo.u32 %r24, %r18, 64, %r24;
    add.u32 %r25, %r4, %r24;
    add.u32 %r26, %r20, 2;
    xor.b32 %r26, %r26, %r23;
    shl.b32 %r26, %r26, 4;
    mad.lo.u32 %r26, %r18, 64, %r26;
    add.u32 %r27, %r4, %r26;
"#;
    for i in 0..16 {
        t += &format!("    mov.f32 %c{i}, 0f00000000;\n");
    }
    t += r#"
    mov.u32 %r30, 0;                     // k done
    mov.u32 %r31, 0;                     // the stage to compute from
    cp.async.cg.shared.global [%r10], [%rd4], 16;
    cp.async.cg.shared.global [%r15+1024], [%rd5], 16;
    cp.async.commit_group;
LOOP:
    add.u64 %rd4, %rd4, 32;
    add.u64 %rd5, %rd5, %rd6;
    add.u32 %r30, %r30, 16;
    setp.ge.u32 %p1, %r30, %r2;
    @%p1 bra FILLED;
    xor.b32 %r32, %r31, 2048;
    add.u32 %r33, %r10, %r32;
    add.u32 %r34, %r15, %r32;
    cp.async.cg.shared.global [%r33], [%rd4], 16;
    cp.async.cg.shared.global [%r34+1024], [%rd5], 16;
FILLED:
    cp.async.commit_group;
    cp.async.wait_group 1;               // all but the stage that was just asked for
    bar.sync 0;                          // the stage of all threads is there
    add.u32 %r35, %r22, %r31;
    add.u32 %r36, %r25, %r31;
    add.u32 %r37, %r27, %r31;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%a0,%a1,%a2,%a3}, [%r35];
    ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%b0,%b1,%b2,%b3}, [%r36+1024];
    ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%b4,%b5,%b6,%b7}, [%r37+1024];
"#;
    for j in 0..4 {
        let c = [0, 1, 2, 3].map(|i| format!("%c{}", 4 * j + i)).join(",");
        let (b0, b1) = (2 * j, 2 * j + 1);
        t += &format!(
            "    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{{c}}}, {{%a0,%a1,%a2,%a3}}, {{%b{b0},%b{b1}}}, {{{c}}};\n"
        );
    }
    t += r#"
    bar.sync 0;                          // the stage was read by all
    xor.b32 %r31, %r31, 2048;
    @!%p1 bra LOOP;
    // c: row 32*by + 16*warp + l/4 (+8), column 32*bx + 8*j + 2*(l%4)
    shr.u32 %r40, %r16, 2;
    and.b32 %r41, %r16, 3;
    mad.lo.u32 %r42, %by, 32, %r40;
    mad.lo.u32 %r42, %r17, 16, %r42;
    mul.lo.u32 %r43, %r42, %r1;
    mad.lo.u32 %r43, %bx, 32, %r43;
    mad.lo.u32 %r43, %r41, 2, %r43;
    mul.wide.u32 %rd7, %r43, 4;
    add.u64 %rd7, %rd1, %rd7;
    mul.wide.u32 %rd8, %r1, 32;          // 8 rows of c
    add.u64 %rd8, %rd7, %rd8;
"#;
    for j in 0..4 {
        let (at, c) = (32 * j, 4 * j);
        t += &format!("    st.global.v2.f32 [%rd7+{at}], {{%c{c},%c{}}};\n", c + 1);
        t += &format!("    st.global.v2.f32 [%rd8+{at}], {{%c{},%c{}}};\n", c + 2, c + 3);
    }
    t + "    ret;\n}\n"
}

/// The sum of n f32 by 128 threads a block; the block that comes last adds the parts in order: parameters out, part, count,
/// x, n. `count` is zero before and after.
pub fn last_block() -> String {
    HEADER.to_string()
        + r#"
.visible .entry last_block(.param .u64 out, .param .u64 part, .param .u64 count, .param .u64 x, .param .u32 n)
.reqntid 128, 1, 1
{
    .reg .pred %p<4>;
    .reg .b32 %r<16>, %bx, %gx;
    .reg .b64 %rd<10>;
    .reg .f32 %f<8>;
    .shared .align 16 .f32 sums[4];
    .shared .align 4 .u32 last;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [part];
    ld.param.u64 %rd3, [count];
    ld.param.u64 %rd4, [x];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %tid.x;
    mov.u32 %bx, %ctaid.x;
    mov.u32 %gx, %nctaid.x;
    mad.lo.u32 %r3, %bx, 128, %r2;
    mov.f32 %f1, 0f00000000;
    setp.lt.u32 %p1, %r3, %r1;
    mul.wide.u32 %rd5, %r3, 4;
    add.u64 %rd5, %rd4, %rd5;
    @%p1 ld.global.f32 %f1, [%rd5];
    mov.u32 %r4, 16;
SHUFFLE:
    shfl.sync.bfly.b32 %f2, %f1, %r4, 31, 0xffffffff;
    add.rn.f32 %f1, %f1, %f2;
    shr.u32 %r4, %r4, 1;
    setp.ne.u32 %p1, %r4, 0;
    @%p1 bra SHUFFLE;
    shr.u32 %r5, %r2, 5;
    shl.b32 %r5, %r5, 2;
    mov.u32 %r6, sums;
    add.u32 %r6, %r6, %r5;
    and.b32 %r7, %r2, 31;
    setp.eq.u32 %p1, %r7, 0;
    @%p1 st.shared.f32 [%r6], %f1;
    bar.sync 0;
    setp.ne.u32 %p2, %r2, 0;
    @%p2 bra WAIT;
    ld.shared.v4.f32 {%f1,%f2,%f3,%f4}, [sums];
    add.rn.f32 %f1, %f1, %f2;
    add.rn.f32 %f3, %f3, %f4;
    add.rn.f32 %f1, %f1, %f3;
    mul.wide.u32 %rd6, %bx, 4;
    add.u64 %rd6, %rd2, %rd6;
    st.global.f32 [%rd6], %f1;           // this block's part
    membar.gl;                           // the part is seen before the count
    sub.u32 %r8, %gx, 1;
    atom.global.inc.u32 %r9, [%rd3], %r8;
    membar.gl;                           // the count is seen before the parts
    st.shared.u32 [last], %r9;
WAIT:
    bar.sync 0;
    ld.shared.u32 %r10, [last];
    sub.u32 %r8, %gx, 1;
    setp.ne.u32 %p3, %r10, %r8;
    @%p3 bra DONE;
    // one thread is not the first, so that the barrier has to carry what the first has seen
    setp.ne.u32 %p3, %r2, 64;
    @%p3 bra DONE;
    mov.f32 %f5, 0f00000000;
    mov.u32 %r11, 0;
ADD:
    ld.global.f32 %f6, [%rd2];           // a part of another block
    add.rn.f32 %f5, %f5, %f6;
    add.u64 %rd2, %rd2, 4;
    add.u32 %r11, %r11, 1;
    setp.lt.u32 %p3, %r11, %gx;
    @%p3 bra ADD;
    st.global.f32 [%rd1], %f5;
DONE:
    ret;
}
"#
}
