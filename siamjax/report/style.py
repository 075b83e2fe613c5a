"""The style sheet of the page: light and dark, from a phone to a wide screen."""

CSS = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f8;--ink:#1c2024;--soft:#555d66;
--line:#c9ced4;--grid:#e4e7ea;--link:#0b5cad;--warn:#fff3d6;--warn-line:#b26a00;--own:#e8f1fa;
--c0:#8a9199;--c1:#0072b2;--c2:#d55e00;--c3:#00795a;--c4:#aa4499;--c5:#7a5c00;--c6:#4b4fb5}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1d2125;--ink:#e6e8ea;
--soft:#a4acb5;--line:#464d55;--grid:#2a2f35;--link:#7fbcf5;--warn:#3a2c0c;--warn-line:#e69f00;
--own:#1b2f42;--c0:#78818a;--c1:#56b4e9;--c2:#f0803c;--c3:#35c79c;--c4:#e08ccb;--c5:#e0c04a;
--c6:#a4a8ff}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
overflow-wrap:anywhere}
main,header,footer{max-width:76rem;margin:0 auto;padding:0 .9rem}
header{padding-top:1.2rem}
h1{font-size:1.45rem;line-height:1.25;margin:0 0 .4rem}
h2{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:.2rem 0 .4rem}
p{margin:.4rem 0;max-width:48rem}
a{color:var(--link)}
.headline{font-size:2.4rem;font-weight:700;line-height:1.1;margin:.8rem 0 .2rem}
.headline small{font-size:1.1rem;font-weight:400;color:var(--soft);white-space:nowrap}
.what{font-weight:600}
.soft,figcaption,.caption{color:var(--soft);font-size:.9rem}
.notice{background:var(--warn);border-left:.35rem solid var(--warn-line);padding:.6rem .8rem;
margin:.9rem 0;font-weight:600}
.notice p{max-width:none}
nav{margin:1rem 0 0;font-size:.95rem}
nav ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1.1rem}
nav a{display:inline-block;padding:.3rem 0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:1rem}
figure{margin:0;padding:.7rem;background:var(--card);border-radius:.5rem;min-width:0}
.charts{margin:.8rem 0}
section>figure{max-width:34rem}
figure svg{display:block;width:100%;height:auto}
.legend li{display:flex;align-items:baseline;min-width:0}
.legend b{margin-right:.3rem}
.legend{list-style:none;margin:.3rem 0;padding:0;display:flex;flex-wrap:wrap;gap:.1rem .9rem;
color:var(--ink)}
figure svg.key{display:inline-block;width:1.6rem;height:.85rem;margin-right:.4rem;
flex:none}
svg text{font-family:inherit;font-size:12.5px;fill:var(--ink)}
svg .name{fill:var(--soft)}
svg .strong{font-weight:700}
svg .halo{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
svg .grid{stroke:var(--grid);fill:none}
svg .axis{stroke:var(--soft);fill:none}
svg .rule{stroke:var(--ink);stroke-width:1.2;fill:none}
svg .frame{fill:none;stroke:var(--line);stroke-width:.6}
svg .line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
svg .area{fill:currentColor;fill-opacity:.22;stroke:none}
svg .dot{fill:none;stroke:currentColor;stroke-width:6;stroke-linecap:round}
svg .dot.c0{stroke-width:2.5}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}
.c4{color:var(--c4)}.c5{color:var(--c5)}.c6{color:var(--c6)}
.scroll{overflow-x:auto;width:fit-content;max-width:100%;margin:.3rem 0 .8rem;
border:1px solid var(--line);border-radius:.4rem}
.scroll:focus-visible,a:focus-visible,summary:focus-visible{outline:3px solid var(--c1)}
table{border-collapse:collapse;font-size:.92rem;overflow-wrap:normal}
.caption{margin:.9rem 0 .3rem}
th,td{text-align:left;vertical-align:top;white-space:nowrap;
padding:.35rem .6rem;border-top:1px solid var(--grid)}
th{font-weight:500}
thead th{font-weight:600;border-top:0;background:var(--card)}
.w{white-space:normal;min-width:8rem;max-width:30rem;overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums}
thead .n{text-align:right}
tr.own{background:var(--own)}tr.own th{font-weight:700}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;
font-size:.88em}
pre{background:var(--card);padding:.6rem .7rem;border-radius:.4rem;white-space:pre-wrap;
margin:.4rem 0;overflow-wrap:anywhere}
details{margin:.7rem 0}
summary{cursor:pointer;padding:.3rem 0;color:var(--link)}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.25rem 1rem;margin:.6rem 0}
dt{color:var(--soft)}dd{margin:0;min-width:0}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(10.2rem,1fr));gap:.7rem;
list-style:none;padding:0;margin:.5rem 0}
.pairs li{background:var(--card);border-radius:.4rem;padding:.5rem;font-size:.8rem;min-width:0}
.pairs div{display:flex;gap:.3rem;margin-bottom:.3rem}
.pairs img{width:calc(50% - .15rem);height:auto;object-fit:contain;align-self:start;
border:1px solid var(--line);image-rendering:pixelated}
.pairs span{word-break:break-all}
.pairs b{font-size:.95rem;display:block}
footer{margin-top:2.5rem;padding-bottom:2rem;color:var(--soft);font-size:.9rem}
@media print{details>*{display:block}.scroll{overflow:visible}}
"""
