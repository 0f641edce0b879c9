// The part of Metal's standard library that the kernels use, for CUDA: NVIDIA's compiler reads naga's Metal through it. Each
// kernel is in a namespace of its own within `metal`, so that these names come before CUDA's own.
#pragma once

#define constant const
#define thread
#define threadgroup

#define INLINE __device__ __forceinline__

namespace metal {

typedef unsigned int uint;

// storage alone: CUDA's own header needs another package
struct half {
    unsigned short bits;
    INLINE half() : bits() {}
    INLINE explicit operator float() const {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
};

template <class T> struct alignas(2 * sizeof(T)) vec2 {
    T x, y;
    INLINE vec2() : x(), y() {}
    INLINE explicit vec2(T all) : x(all), y(all) {}
    INLINE vec2(T x, T y) : x(x), y(y) {}
    template <class U> INLINE explicit vec2(vec2<U> v) : x(T(v.x)), y(T(v.y)) {}
};

template <class T> struct vec3 { T x, y, z; };

template <class T> struct alignas(4 * sizeof(T)) vec4 {
    T x, y, z, w;
    INLINE vec4() : x(), y(), z(), w() {}
    INLINE explicit vec4(T all) : x(all), y(all), z(all), w(all) {}
    INLINE vec4(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}
    INLINE vec4(vec2<T> a, vec2<T> b) : x(a.x), y(a.y), z(b.x), w(b.y) {}
    INLINE vec2<T> xy() const { return vec2<T>(x, y); }
    INLINE vec2<T> zw() const { return vec2<T>(z, w); }
    template <class U> INLINE explicit vec4(vec4<U> v) : x(T(v.x)), y(T(v.y)), z(T(v.z)), w(T(v.w)) {}
};

typedef vec2<float> float2;
typedef vec4<float> float4;
typedef vec2<half> half2;
typedef vec4<half> half4;
typedef vec2<uint> uint2;
typedef vec3<uint> uint3;
typedef vec4<uint> uint4;
typedef vec2<int> int2;
typedef vec4<int> int4;
typedef vec2<bool> bool2;
typedef vec4<bool> bool4;

// component by component; a scalar on the right counts for all
#define OPERATOR(op)                                                                                                          \
    template <class T> INLINE auto operator op(vec2<T> a, vec2<T> b) { return vec2<decltype(a.x op b.x)>(a.x op b.x, a.y op b.y); } \
    template <class T> INLINE auto operator op(vec4<T> a, vec4<T> b) {                                                        \
        return vec4<decltype(a.x op b.x)>(a.x op b.x, a.y op b.y, a.z op b.z, a.w op b.w);                                    \
    }                                                                                                                         \
    template <class T> INLINE auto operator op(vec4<T> a, T b) { return a op vec4<T>(b); }                                    \
    template <class T> INLINE auto operator op(vec2<T> a, T b) { return a op vec2<T>(b); }
OPERATOR(+)
OPERATOR(-)
OPERATOR(*)
OPERATOR(/)
OPERATOR(&)
OPERATOR(|)
OPERATOR(<<)
OPERATOR(>>)
OPERATOR(==)
OPERATOR(!=)
OPERATOR(<)
OPERATOR(<=)
OPERATOR(>)
OPERATOR(>=)
template <class T> INLINE vec2<T> operator*(T a, vec2<T> b) { return vec2<T>(a) * b; }
template <class T> INLINE vec4<T> operator*(T a, vec4<T> b) { return vec4<T>(a) * b; }
template <class T> INLINE vec4<T> operator-(vec4<T> a) { return vec4<T>() - a; }
template <class T> INLINE vec2<T> &operator-=(vec2<T> &a, vec2<T> b) { return a = a - b; }

INLINE bool all(bool2 b) { return b.x && b.y; }
INLINE bool all(bool4 b) { return b.x && b.y && b.z && b.w; }
INLINE bool any(bool4 b) { return b.x || b.y || b.z || b.w; }

INLINE uint min(uint a, uint b) { return a < b ? a : b; }
INLINE uint max(uint a, uint b) { return a > b ? a : b; }
INLINE int min(int a, int b) { return a < b ? a : b; }
INLINE int max(int a, int b) { return a > b ? a : b; }
INLINE float min(float a, float b) { return fminf(a, b); }
INLINE float max(float a, float b) { return fmaxf(a, b); }
template <class T> INLINE T clamp(T v, T low, T high) { return min(max(v, low), high); }
INLINE float abs(float v) { return fabsf(v); }
INLINE float rint(float v) { return rintf(v); }
INLINE float sqrt(float v) { return sqrtf(v); }
INLINE float rsqrt(float v) { return rsqrtf(v); }
INLINE float exp2(float v) { return exp2f(v); }
INLINE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

#define UNARY(name) INLINE float4 name(float4 v) { return float4(name(v.x), name(v.y), name(v.z), name(v.w)); }
UNARY(abs)
UNARY(rint)
UNARY(sqrt)
UNARY(exp2)
template <class T> INLINE vec2<T> min(vec2<T> a, vec2<T> b) { return vec2<T>(min(a.x, b.x), min(a.y, b.y)); }
template <class T> INLINE vec2<T> max(vec2<T> a, vec2<T> b) { return vec2<T>(max(a.x, b.x), max(a.y, b.y)); }
template <class T> INLINE vec4<T> min(vec4<T> a, vec4<T> b) { return vec4<T>(min(a.x, b.x), min(a.y, b.y), min(a.z, b.z), min(a.w, b.w)); }
template <class T> INLINE vec4<T> max(vec4<T> a, vec4<T> b) { return vec4<T>(max(a.x, b.x), max(a.y, b.y), max(a.z, b.z), max(a.w, b.w)); }
INLINE float4 fma(float4 a, float4 b, float4 c) {
    return float4(fma(a.x, b.x, c.x), fma(a.y, b.y, c.y), fma(a.z, b.z, c.z), fma(a.w, b.w, c.w));
}
INLINE float2 fma(float2 a, float2 b, float2 c) { return float2(fma(a.x, b.x, c.x), fma(a.y, b.y, c.y)); }
INLINE float dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

template <class T> INLINE T select(T a, T b, bool c) { return c ? b : a; }
template <class T> INLINE vec4<T> select(vec4<T> a, vec4<T> b, bool4 c) {
    return vec4<T>(c.x ? b.x : a.x, c.y ? b.y : a.y, c.z ? b.z : a.z, c.w ? b.w : a.w);
}

struct float4x4 {
    float4 column[4];
    INLINE float4x4() {}
    INLINE float4x4(float4 a, float4 b, float4 c, float4 d) : column{a, b, c, d} {}
    INLINE float4 &operator[](int i) { return column[i]; }
    INLINE const float4 &operator[](int i) const { return column[i]; }
};
INLINE float4x4 transpose(float4x4 m) {
    return float4x4(float4(m[0].x, m[1].x, m[2].x, m[3].x), float4(m[0].y, m[1].y, m[2].y, m[3].y),
                    float4(m[0].z, m[1].z, m[2].z, m[3].z), float4(m[0].w, m[1].w, m[2].w, m[3].w));
}

template <class T, class U> INLINE T as_type(U value) {
    static_assert(sizeof(T) == sizeof(U), "the same bits");
    T result;
    memcpy(&result, &value, sizeof(T));
    return result;
}

enum class mem_flags { mem_none, mem_device, mem_threadgroup };
INLINE void threadgroup_barrier(mem_flags) { __syncthreads(); }

}
