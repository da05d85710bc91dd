/* SPDX-License-Identifier: MIT
 * chain_ffn_amx.c - the feed-forward block on tiles; the work is in chain_ffn_tmpl.h. */
#include "tmpl/chain_ffn_tmpl.h"

CHAIN_FFN_CELL(amx);
