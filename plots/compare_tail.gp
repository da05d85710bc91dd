# SPDX-License-Identifier: MIT
# compare_tail - are single positions far apart? Columns: x y
eval chart_title('How far apart single positions are')
eval x_title('|nll_B - nll_A| of a position, nats')
eval y_title('positions at least that far apart, %')
plot for [i = 1:n_series] data index i - 1 using 1:2 with linespoints lt i title name[i]
