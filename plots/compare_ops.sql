-- SPDX-License-Identifier: MIT
-- compare_ops: the error of every operation on equal inputs as a share of its limit, one heat map
-- per comparison and arm. Arm A has one only if it errs at all, as ref against itself does not.
SELECT s.run_id, s.model AS label_model, s.qtype AS label_qtype, c.arms AS label_arms,
       CASE s.metric WHEN 'op_error' THEN 'arm B' ELSE 'arm A' END AS label_arm,
       s.text AS label_text, s.n_ctx AS label_n_ctx, s.n_threads AS label_n_threads,
       s.n_ubatch AS label_n_ubatch, s.type_k AS label_type_k, s.type_v AS label_type_v,
       COALESCE(NULLIF(s.engine_commit, ''), s.commit_id) AS label_commit,
       s.model_fp AS series_model_fp, s.arm_b AS series_arm_b, s.settings AS series_settings,
       COALESCE(c.verdict, 'unfinished') AS name_verdict,
       s.subject AS node, s.value AS heat
FROM selected AS s
LEFT JOIN comparison AS c ON c.run_id = s.run_id AND c.model_fp IS s.model_fp
     AND c.backend IS s.backend AND c.arm_b IS s.arm_b AND c.settings IS s.settings
WHERE s.test = 'compare'
      AND (s.metric = 'op_error' OR s.metric = 'op_error_a' AND EXISTS
           (SELECT 1 FROM selected AS o
            WHERE o.run_id = s.run_id AND o.model_fp IS s.model_fp AND o.backend IS s.backend
                  AND o.arm_b IS s.arm_b AND o.settings IS s.settings AND o.metric = 'op_error_a'
                  AND (o.value IS NULL OR o.value > 0)))
ORDER BY s.model, s.bpw DESC, s.run_id, s.metric, s.row_no
