-- SPDX-License-Identifier: MIT
-- compare_tail: how many positions of a text are at least so far apart, from the quantiles of
-- |nll_B - nll_A|. A quantile beyond what n_rep positions can tell is left out; the largest
-- difference stands for one of them. Equal positions have no place on an axis of logarithms.
SELECT s.run_id, s.model AS label_model, s.qtype AS label_qtype, c.arms AS label_arms,
       s.text AS label_text, s.n_ctx AS label_n_ctx, s.n_threads AS label_n_threads,
       s.n_ubatch AS label_n_ubatch, s.type_k AS label_type_k, s.type_v AS label_type_v,
       COALESCE(NULLIF(s.engine_commit, ''), s.commit_id) AS label_commit,
       s.model_fp AS series_model_fp, s.arm_b AS series_arm_b, s.settings AS series_settings,
       printf('%s, %d positions, max %.3g', COALESCE(c.verdict, 'unfinished'), s.n_rep,
              MAX(s.value) OVER (PARTITION BY s.run_id, s.model_fp, s.backend, s.arm_b, s.settings))
       AS name_verdict,
       s.value AS x, 1 AS x_log, 100.0 * s.share AS y
FROM (SELECT *, CASE WHEN subject = 'max' THEN 1.0 / n_rep
                     WHEN subject LIKE 'p%' THEN 1 - CAST(substr(subject, 2) AS REAL) / 100 END
                AS share
      FROM selected
      WHERE test = 'compare' AND metric = 'd_abs' AND value > 0) AS s
LEFT JOIN comparison AS c ON c.run_id = s.run_id AND c.model_fp IS s.model_fp
     AND c.backend IS s.backend AND c.arm_b IS s.arm_b AND c.settings IS s.settings
WHERE s.subject = 'max' OR s.share * s.n_rep >= 1.5
ORDER BY s.model, s.bpw DESC, s.run_id, s.share DESC
