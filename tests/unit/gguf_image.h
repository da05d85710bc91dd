/* SPDX-License-Identifier: MIT
 * gguf_image.h - GGUF files put together byte by byte, also wrong ones. */
#ifndef GGAUGE_TEST_GGUF_IMAGE_H
#define GGAUGE_TEST_GGUF_IMAGE_H

#include <stdint.h>
#include <string.h>

struct image {
    unsigned char p[16384];
    size_t n;
};

static inline void im_bytes(struct image *im, const void *p, size_t n) {
    if (n > sizeof im->p - im->n) n = sizeof im->p - im->n;
    memcpy(im->p + im->n, p, n);
    im->n += n;
}

static inline void im_u32(struct image *im, uint32_t v) {
    im_bytes(im, &v, sizeof v);
}

static inline void im_u64(struct image *im, uint64_t v) {
    im_bytes(im, &v, sizeof v);
}

static inline void im_str(struct image *im, const char *s) {
    im_u64(im, strlen(s));
    im_bytes(im, s, strlen(s));
}

static inline void im_zeros(struct image *im, size_t n) {
    static const unsigned char zeros[16384];
    im_bytes(im, zeros, n);
}

static inline void im_pad(struct image *im, size_t alignment) {
    im_zeros(im, (alignment - im->n % alignment) % alignment);
}

static inline void im_head(struct image *im, uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
    im->n = 0;
    im_bytes(im, "GGUF", 4);
    im_u32(im, version);
    im_u64(im, n_tensors);
    im_u64(im, n_kv);
}

/* The start of a pair: the value follows. */
static inline void im_key(struct image *im, const char *key, uint32_t type) {
    im_str(im, key);
    im_u32(im, type);
}

static inline void im_kv_u32(struct image *im, const char *key, uint32_t v) {
    im_key(im, key, 4);
    im_u32(im, v);
}

/* A matrix of ne1 rows. */
static inline void im_info(struct image *im, const char *name, uint64_t ne0, uint64_t ne1,
                           uint32_t type, uint64_t offset) {
    im_str(im, name);
    im_u32(im, 2);
    im_u64(im, ne0);
    im_u64(im, ne1);
    im_u32(im, type);
    im_u64(im, offset);
}

#endif
