# SPDX-License-Identifier: MIT
# sweep_pp - prompt processing speed against depth, bars: interval of the median. Columns: x y y_low y_high
eval chart_title('Prompt processing speed')
eval x_title('N_KV before the measurement, tokens' \
    .(strlen(bars) ? '; bars: interval of the median, 95 % from 6 repeats on' : ''))
eval y_title('S_PP, tokens/s (higher is better)')
set format x '%.0f'
# Depths are multiples of powers of two; so are the tics.
set xtics 2 ** ceil(log((x_hi - x_lo) / 9.0) / log(2))
plot for [i = 1:n_series] data index i - 1 using 1:2:3:4 with yerrorbars \
         lt i dt 1 lw 1 ps 0.1 notitle, \
     for [i = 1:n_series] data index i - 1 using 1:2 with linespoints lt i title name[i]
