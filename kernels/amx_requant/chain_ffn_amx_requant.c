/* SPDX-License-Identifier: MIT
 * chain_ffn_amx_requant.c - the feed-forward block on tiles of bytes; the work is in
 * chain_ffn_tmpl.h. */
#include "tmpl/chain_ffn_tmpl.h"

CHAIN_FFN_CELL(amx_requant);
