//! Real kernels as text. The tests run them as they are, and broken on purpose.
use super::HEADER;

/// y += a·x with a tail: parameters y, x, a, n.
pub fn saxpy() -> String {
    HEADER.to_string()
        + r#"
.visible .entry saxpy(.param .u64 y, .param .u64 x, .param .f32 a, .param .u32 n)
.maxntid 128
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<8>;
    .reg .f32 %f<5>;
    ld.param.u64 %rd1, [y];
    ld.param.u64 %rd2, [x];
    ld.param.f32 %f1, [a];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;      // the guard of the tail
    @%p1 bra DONE;
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.u32 %rd5, %r5, 4;
    add.s64 %rd6, %rd4, %rd5;
    add.s64 %rd7, %rd3, %rd5;
    ld.global.nc.f32 %f2, [%rd6];
    ld.global.f32 %f3, [%rd7];
    fma.rn.f32 %f4, %f1, %f2, %f3;
    st.global.f32 [%rd7], %f4;
DONE:
    ret;
}
"#
}

/// One sum a block of 256 threads: parameters out, x, n. Shuffles in a warp, shared memory between warps.
pub fn block_sum() -> String {
    HEADER.to_string()
        + r#"
.visible .entry block_sum(.param .u64 out, .param .u64 x, .param .u32 n)
.reqntid 256, 1, 1
{
    .reg .pred %p<4>;
    .reg .b32 %r<12>;
    .reg .b64 %rd<6>;
    .reg .f32 %f<12>;
    .shared .align 4 .f32 part[8];
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [x];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    mad.lo.u32 %r4, %r3, 256, %r2;
    setp.lt.u32 %p1, %r4, %r1;
    mul.wide.u32 %rd3, %r4, 4;
    add.u64 %rd4, %rd2, %rd3;
    mov.f32 %f1, 0f00000000;
    @%p1 ld.global.f32 %f1, [%rd4];
    shfl.sync.bfly.b32 %f2, %f1, 16, 31, 0xffffffff;
    add.rn.f32 %f1, %f1, %f2;
    shfl.sync.bfly.b32 %f2, %f1, 8, 31, 0xffffffff;
    add.rn.f32 %f1, %f1, %f2;
    shfl.sync.bfly.b32 %f2, %f1, 4, 31, 0xffffffff;
    add.rn.f32 %f1, %f1, %f2;
    shfl.sync.bfly.b32 %f2, %f1, 2, 31, 0xffffffff;
    add.rn.f32 %f1, %f1, %f2;
    shfl.sync.bfly.b32 %f2, %f1, 1, 31, 0xffffffff;
    add.rn.f32 %f1, %f1, %f2;
    and.b32 %r5, %r2, 31;
    shr.u32 %r6, %r2, 5;
    mov.u32 %r7, part;
    shl.b32 %r8, %r6, 2;
    add.u32 %r9, %r7, %r8;
    setp.eq.u32 %p2, %r5, 0;
    @%p2 st.shared.f32 [%r9], %f1;
    bar.sync 0;                          // the parts are there
    setp.ge.u32 %p3, %r2, 8;
    @%p3 bra DONE;
    shl.b32 %r10, %r2, 2;
    add.u32 %r11, %r7, %r10;
    ld.shared.f32 %f3, [%r11];
    shfl.sync.bfly.b32 %f4, %f3, 4, 31, 0xff;
    add.rn.f32 %f3, %f3, %f4;
    shfl.sync.bfly.b32 %f4, %f3, 2, 31, 0xff;
    add.rn.f32 %f3, %f3, %f4;
    shfl.sync.bfly.b32 %f4, %f3, 1, 31, 0xff;
    add.rn.f32 %f3, %f3, %f4;
    setp.ne.u32 %p3, %r2, 0;
    @%p3 bra DONE;
    mul.wide.u32 %rd5, %r3, 4;
    add.u64 %rd5, %rd1, %rd5;
    st.global.f32 [%rd5], %f3;
DONE:
    ret;
}
"#
}

/// y[j][i] = x[i][j] by tiles of 32×32 in rows of 33: parameters y, x, n (a multiple of 32). Block 32×8.
pub fn transpose() -> String {
    let mut body = String::new();
    for k in 0..4 {
        body += &format!(
            "    ld.global.f32 %f1, [%rd4];\n    st.shared.f32 [%r7+{}], %f1;\n    add.u64 %rd4, %rd4, %rd5;\n",
            k * 8 * 132
        );
    }
    body += "    bar.sync 0;                          // the tile is there\n";
    for k in 0..4 {
        body += &format!(
            "    ld.shared.f32 %f1, [%r8+{}];\n    st.global.f32 [%rd6], %f1;\n    add.u64 %rd6, %rd6, %rd5;\n",
            k * 8 * 4
        );
    }
    HEADER.to_string()
        + r#"
.visible .entry transpose(.param .u64 y, .param .u64 x, .param .u32 n)
{
    .reg .b32 %r<20>;
    .reg .b64 %rd<10>;
    .reg .f32 %f<2>;
    .shared .align 16 .b8 tile[4224];
    ld.param.u64 %rd1, [y];
    ld.param.u64 %rd2, [x];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %tid.y;
    mov.u32 %r4, %ctaid.x;
    mov.u32 %r5, %ctaid.y;
    mov.u32 %r6, tile;
    // tile + 132*ty + 4*tx to write, tile + 132*tx + 4*ty to read
    mad.lo.u32 %r7, %r3, 132, %r6;
    mad.lo.u32 %r7, %r2, 4, %r7;
    mad.lo.u32 %r8, %r2, 132, %r6;
    mad.lo.u32 %r8, %r3, 4, %r8;
    // x + 4*((32*by + ty)*n + 32*bx + tx)
    mad.lo.u32 %r9, %r5, 32, %r3;
    mul.lo.u32 %r9, %r9, %r1;
    mad.lo.u32 %r10, %r4, 32, %r2;
    add.u32 %r9, %r9, %r10;
    mul.wide.u32 %rd3, %r9, 4;
    add.u64 %rd4, %rd2, %rd3;
    // y + 4*((32*bx + ty)*n + 32*by + tx)
    mad.lo.u32 %r11, %r4, 32, %r3;
    mul.lo.u32 %r11, %r11, %r1;
    mad.lo.u32 %r12, %r5, 32, %r2;
    add.u32 %r11, %r11, %r12;
    mul.wide.u32 %rd3, %r11, 4;
    add.u64 %rd6, %rd1, %rd3;
    mul.wide.u32 %rd5, %r1, 32;
"# + &body
        + "    ret;\n}\n"
}

/// c = a·b of n×n f32 by tiles of 16×16: parameters c, a, b, n (a multiple of 16). Block 16×16.
pub fn matmul() -> String {
    let mut inner = String::new();
    for k in 0..16 {
        inner += &format!("    ld.shared.f32 %f3, [%r7+{}];\n    ld.shared.f32 %f4, [%r8+{}];\n", 4 * k, 64 * k);
        inner += "    fma.rn.f32 %f1, %f3, %f4, %f1;\n";
    }
    HEADER.to_string()
        + r#"
.visible .entry matmul(.param .u64 c, .param .u64 a, .param .u64 b, .param .u32 n)
.reqntid 16, 16, 1
{
    .reg .pred %p<2>;
    .reg .b32 %r<24>, %bx, %by;
    .reg .b64 %rd<12>;
    .reg .f32 %f<6>;
    .shared .align 16 .b8 ta[1024];
    .shared .align 16 .b8 tb[1024];
    ld.param.u64 %rd1, [c];
    ld.param.u64 %rd2, [a];
    ld.param.u64 %rd3, [b];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %tid.y;
    mov.u32 %bx, %ctaid.x;
    mov.u32 %by, %ctaid.y;
    mov.u32 %r4, ta;
    mov.u32 %r5, tb;
    // where this thread writes, and the row of a and the column of b that it reads
    mad.lo.u32 %r6, %r3, 16, %r2;
    shl.b32 %r6, %r6, 2;
    mad.lo.u32 %r7, %r3, 64, %r4;
    mad.lo.u32 %r8, %r2, 4, %r5;
    add.u32 %r9, %r4, %r6;
    add.u32 %r10, %r5, %r6;
    mad.lo.u32 %r11, %by, 16, %r3;
    mad.lo.u32 %r12, %bx, 16, %r2;
    mad.lo.u32 %r13, %r11, %r1, %r2;
    mul.wide.u32 %rd4, %r13, 4;
    add.u64 %rd4, %rd2, %rd4;
    mad.lo.u32 %r14, %r3, %r1, %r12;
    mul.wide.u32 %rd5, %r14, 4;
    add.u64 %rd5, %rd3, %rd5;
    mul.wide.u32 %rd6, %r1, 64;
    mov.f32 %f1, 0f00000000;
    mov.u32 %r15, 0;
LOOP:
    ld.global.f32 %f2, [%rd4];
    st.shared.f32 [%r9], %f2;
    ld.global.f32 %f2, [%rd5];
    st.shared.f32 [%r10], %f2;
    bar.sync 0;                          // both tiles are there
"# + &inner
        + r#"    bar.sync 0;                          // both tiles were read
    add.u64 %rd4, %rd4, 64;
    add.u64 %rd5, %rd5, %rd6;
    add.u32 %r15, %r15, 16;
    setp.lt.u32 %p1, %r15, %r1;
    @%p1 bra LOOP;
    mad.lo.u32 %r16, %r11, %r1, %r12;
    mul.wide.u32 %rd7, %r16, 4;
    add.u64 %rd7, %rd1, %rd7;
    st.global.f32 [%rd7], %f1;
    ret;
}
"#
}
