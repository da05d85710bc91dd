# SPDX-License-Identifier: MIT
# compare_ratio - do two arms agree in the mean? Columns: x y y_low y_high; y_marks: the margins
eval chart_title('Difference of two arms, closing in')
eval x_title('chunks compared; band: interval that holds at every look')
eval y_title('ln(PPL_B / PPL_A)')
thin = ceil((x_hi - x_lo) / 300.0)
gap = ceil((x_hi - x_lo) / thin / 20.0)
# Between the lines a comparison may pass, beyond them it fails.
do for [i = 1:words(y_marks)] {
    m = real(word(y_marks, i))
    set arrow from graph 0, first m to graph 1, first m nohead lc rgb '#882222' lw 1.3 dt (8, 5)
    set arrow from graph 0, first -m to graph 1, first -m nohead lc rgb '#882222' lw 1.3 dt (8, 5)
    set label sprintf('margin ±%g', m) at graph 0.992, first m right offset 0, 0.6 \
        textcolor rgb '#882222' front
}
set arrow from graph 0, first 0 to graph 1, first 0 nohead lc rgb '#888888' lw 1
plot for [i = 1:n_series] data index i - 1 every thin using 1:3:4 with filledcurves \
         lt i fs transparent solid 0.15 noborder notitle, \
     for [i = 1:n_series] data index i - 1 every thin using 1:2 with linespoints \
         lt i pointinterval gap title name[i]
