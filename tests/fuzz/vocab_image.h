/* SPDX-License-Identifier: MIT
 * vocab_image.h - GGUF files with nothing but a vocabulary, built in memory for the tests and the
 * fuzz target of the tokenizers. Layout: the GGUF specification, version 3. */
#ifndef GGAUGE_VOCAB_IMAGE_H
#define GGAUGE_VOCAB_IMAGE_H

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "gguf/gguf.h"

struct image {
    unsigned char *p;
    size_t n, cap;
};

static inline void image_put(struct image *im, const void *s, size_t n) {
    if (im->cap - im->n < n) {
        im->cap = (im->n + n) * 2;
        unsigned char *p = heap_realloc(im->p, im->cap, NULL);
        if (!p) return;
        im->p = p;
    }
    if (n) memcpy(im->p + im->n, s, n);
    im->n += n;
}

static inline void image_put_u32(struct image *im, uint32_t v) {
    image_put(im, &v, sizeof v);
}

static inline void image_put_str(struct image *im, const char *s, size_t n) {
    uint64_t length = n;
    image_put(im, &length, sizeof length);
    image_put(im, s, n);
}

/* Counts the pair, writes its key and type. */
static inline void image_key(struct image *im, const char *key, uint32_t type) {
    uint64_t n_kv;
    if (!im->n) {
        static const unsigned char head[24] = { 'G', 'G', 'U', 'F', 3 };
        image_put(im, head, sizeof head);
    }
    memcpy(&n_kv, im->p + 16, sizeof n_kv);
    n_kv++;
    memcpy(im->p + 16, &n_kv, sizeof n_kv);
    image_put_str(im, key, strlen(key));
    image_put_u32(im, type);
}

static inline void image_u32(struct image *im, const char *key, uint32_t v) {
    image_key(im, key, GGUF_UINT32);
    image_put_u32(im, v);
}

static inline void image_bool(struct image *im, const char *key, bool v) {
    unsigned char b = v;
    image_key(im, key, GGUF_BOOL);
    image_put(im, &b, 1);
}

static inline void image_str(struct image *im, const char *key, const char *v) {
    image_key(im, key, GGUF_STRING);
    image_put_str(im, v, strlen(v));
}

/* An array of 4-byte numbers. */
static inline void image_numbers(struct image *im, const char *key, enum gguf_value elem,
                                 const void *v, uint64_t n) {
    image_key(im, key, GGUF_ARRAY);
    image_put_u32(im, elem);
    image_put(im, &n, sizeof n);
    image_put(im, v, n * 4);
}

static inline void image_strs(struct image *im, const char *key, const struct gguf_str *v,
                              uint64_t n) {
    image_key(im, key, GGUF_ARRAY);
    image_put_u32(im, GGUF_STRING);
    image_put(im, &n, sizeof n);
    for (uint64_t i = 0; i < n; i++)
        image_put_str(im, v[i].p, v[i].n);
}

/* Pads to the alignment of the (empty) data section. */
static inline int image_open(struct image *im, struct gguf **g, struct err *e) {
    static const unsigned char zero[32];
    image_put(im, zero, (32 - im->n % 32) % 32);
    return gguf_open_memory(g, im->p, im->n, e);
}

static inline void image_release(struct image *im) {
    heap_free(im->p);
    *im = (struct image){ 0 };
}

/* The character that stands for a byte in byte-level vocabularies; returns its length. */
static inline int image_byte_char(int b, char out[2]) {
    int cp = b;
    if (b <= 0x20) cp = 0x100 + b;
    else if (b >= 0x7F && b <= 0xA0) cp = 0x121 + b - 0x7F;
    else if (b == 0xAD) cp = 0x143;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xC0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3F));
    return 2;
}

#endif
