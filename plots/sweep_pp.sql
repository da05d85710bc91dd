-- SPDX-License-Identifier: MIT
-- sweep_pp: prompt processing speed against the depth of the KV cache, one curve per run.
-- n_pp and n_tg are told only where they are not the usual ones, -ub and a quarter of it.
SELECT run_id,
       engine AS label_engine, model AS label_model, qtype AS label_qtype,
       NULLIF(backend, engine) AS label_backend, n_threads AS label_n_threads, n_ubatch AS label_n_ubatch,
       NULLIF(n_pp, n_ubatch) AS label_n_pp, NULLIF(n_tg, n_ubatch / 4) AS label_n_tg,
       type_k AS label_type_k, type_v AS label_type_v, placement AS label_placement,
       COALESCE(NULLIF(engine_commit, ''), commit_id) AS label_commit, host AS label_host,
       model_fp AS series_model_fp,
       n_kv AS x, value AS y, ci_low AS y_low, ci_high AS y_high, 1 AS from_zero
FROM selected
WHERE metric = 'pp_tps' AND test = 'sweep-bench'
ORDER BY model, bpw DESC, backend, n_ubatch, run_id, x
