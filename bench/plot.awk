# plot.awk: a line plot as SVG from lines "series TAB x TAB y".
#	awk -f plot.awk -v title=... -v xlabel=... -v ylabel=...
# The values of x are few and stand at equal distances; y starts at 0.

BEGIN {
	FS = "\t"
	width = 760; height = 400; left = 90; right = 210; top = 45; bottom = 55
	split("#0b6e4f #c8553d #2b59c3 #b8860b #7b2d8b #4a4a4a", colour, " ")
}

{
	if (!($1 in series_number)) series_name[series_number[$1] = ++series] = $1
	if (!($2 in seen)) { seen[$2] = 1; x_value[++xs] = $2 }
	y[$1, $2] = $3
	if ($3 > highest) highest = $3
}

function text(x, y, anchor, what) {
	gsub(/&/, "\\&amp;", what)
	gsub(/</, "\\&lt;", what)
	printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, what
}

# a round number of steps: 1, 2 or 5 times a power of ten
function step_for(limit,   power) {
	power = 10 ^ int(log(limit / 5) / log(10))
	if (limit / power <= 5) return power
	if (limit / power <= 10) return 2 * power
	return (limit / power <= 25) ? 5 * power : 10 * power
}

function x_at(i) { return left + ((xs > 1) ? (i - 1) / (xs - 1) : 0.5) * (width - left - right) }
function y_at(v) { return height - bottom - v / limit * (height - top - bottom) }

function by_number(   i, j, t) {
	for (i = 2; i <= xs; i++)
		for (j = i; j > 1 && x_value[j - 1] + 0 > x_value[j] + 0; j--) {
			t = x_value[j]; x_value[j] = x_value[j - 1]; x_value[j - 1] = t
		}
}

END {
	if (highest <= 0) highest = 1
	by_number()
	step = step_for(highest)
	limit = step * int((highest + step * 0.999) / step)
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n", width, height
	print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
	printf "<g font-size=\"15\" font-weight=\"bold\">"; text(left, 24, "start", title); print "</g>"
	for (v = 0; v <= limit + step / 2; v += step) {
		printf "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", left, width - right, y_at(v), y_at(v)
		text(left - 8, y_at(v) + 4, "end", sprintf("%d", v))
	}
	# a dozen labels at most
	for (i = 1; i <= xs; i += int((xs - 1) / 12) + 1) text(x_at(i), height - bottom + 18, "middle", x_value[i])
	text((left + width - right) / 2, height - 14, "middle", xlabel)
	printf "<g transform=\"translate(18,%d) rotate(-90)\">", (top + height - bottom) / 2; text(0, 0, "middle", ylabel); print "</g>"
	for (s = 1; s <= series; s++) {
		name = series_name[s]
		points = ""
		shade = colour[(s - 1) % 6 + 1]
		for (i = 1; i <= xs; i++)
			if ((name, x_value[i]) in y) {
				points = points sprintf("%.1f,%.1f ", x_at(i), y_at(y[name, x_value[i]]))
				printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", x_at(i), y_at(y[name, x_value[i]]), shade
			}
		printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", points, shade,
			(name ~ /held/) ? " stroke-dasharray=\"6 4\"" : ""
		printf "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", width - right + 18, top + (s - 1) * 20, shade
		text(width - right + 36, top + (s - 1) * 20 + 10, "start", name)
	}
	print "</svg>"
}
