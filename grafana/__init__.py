"""Dashboards and rules as code: what Grafana shows of Wattgate, and when Prometheus calls somebody.

    boards/    a dashboard: title, purpose, and which rows it has      boards/__init__.py: BOARDS
    rows/      a row: panels that answer one question                  rows/__init__.py: ROWS
    panels/    a kind of drawing: lines, table, states                 panels/__init__.py: PANEL_KINDS
    queries/   the only folder that writes PromQL
    rules/     recording rules and alerts                          rules/__init__.py: RULES
    variables.py  the choices at the top of a dashboard
    push/      brings all of it into a running Grafana             `wattgate grafana push --help`
    generate.py   boards → JSON, rules → YAML, and the comparison with what is committed
    dashboards/   the generated JSON, as deploy/prometheus/rules/ has the generated YAML; never edited by hand

To add a panel, add a value to a row's file. To add a row, a kind of drawing or a dashboard, add a file to its folder
and a line to the folder's table. `python -m grafana generate` writes the JSON, `python -m grafana check` compares it.
"""
