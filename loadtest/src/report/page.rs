//! The style and the script of the page. Colours are Okabe and Ito's, which colour-blind people
//! can tell apart; lines differ by dashes, too.

/// The style sheet.
pub const STYLE: &str = "
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#dfe3e8;
--grid:#e1e5ea;--good:#00694c;--bad:#a83200;--warn:#7a5200;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0568a;--c4:#666e78}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e8eaed;--soft:#9aa4af;
--line:#30363d;--grid:#2f353c;--good:#3ecf9f;--bad:#ff8a50;--warn:#f0b429;
--c0:#56b4e9;--c1:#ff8a3d;--c2:#2fc49a;--c3:#e08fbd;--c4:#a6afb9}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',
Roboto,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1240px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0;line-height:1.25}h2{font-size:18px;margin:36px 0 12px}
h3{font-size:15px;margin:0}p{margin:6px 0}.soft,.none{color:var(--soft)}
.verdict{border-left:5px solid var(--good);background:var(--card);padding:14px 18px;border-radius:8px;
margin-top:18px}
.verdict strong{color:var(--good)}.verdict.failed{border-color:var(--bad)}
.verdict.failed strong{color:var(--bad)}
.verdict.interrupted{border-color:var(--warn)}.verdict.interrupted strong{color:var(--warn)}
.verdict ul{margin:6px 0 0;padding-left:20px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(148px,1fr));gap:12px;margin-top:16px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:23px;line-height:1.3;font-weight:600}
.tile span{color:var(--soft);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(480px,100%),1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:12px 14px 8px;position:relative;min-width:0}
figcaption{display:flex;flex-wrap:wrap;gap:4px 18px;align-items:baseline;
justify-content:space-between;margin-bottom:6px}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:0;padding:0;font-size:13px;
color:var(--soft)}
.legend svg{width:22px;height:8px;margin-right:6px;vertical-align:middle}
.chart{width:100%;height:auto;display:block}
.chart text{fill:var(--soft);font-size:11.5px}.chart .g{stroke:var(--grid)}
.at{stroke:var(--soft);stroke-dasharray:3 3}
.l{fill:none;stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1);stroke-dasharray:7 3}.c2{stroke:var(--c2)}
.c3{stroke:var(--c3);stroke-dasharray:2 3.5}.c4{stroke:var(--c4);stroke-width:1.2}
output{position:absolute;pointer-events:none;background:var(--card);border:1px solid var(--line);
border-radius:6px;padding:5px 9px;font-size:12.5px;line-height:1.45;white-space:pre;top:44px;
box-shadow:0 2px 8px #0003}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:7px 13px;border-top:1px solid var(--line);vertical-align:top}
tr:first-child th,tr:first-child td{border-top:0}
thead th{color:var(--soft);font-weight:500;font-size:13px;white-space:nowrap}
.n{text-align:right;white-space:nowrap}tbody th{font-weight:500;white-space:nowrap}
code{font:13px ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(480px,100%),1fr));gap:0 14px}
.bad{color:var(--bad)}.warn{color:var(--warn)}.good{color:var(--good)}
@media print{body{background:#fff}figure,.tile,.scroll{break-inside:avoid}}
";

/// Shows the values under the pointer. The page is complete without it.
pub const SCRIPT: &str = "
document.querySelectorAll('figure').forEach(function(f){
  var d=f.querySelector('script'),s=f.querySelector('svg.chart'),o=f.querySelector('output');
  if(!d||!s||!o)return;
  d=JSON.parse(d.textContent);
  var at=s.querySelector('.at');
  function hide(){o.hidden=true;at.setAttribute('visibility','hidden')}
  s.addEventListener('pointermove',function(e){
    var r=s.getBoundingClientRect(),x=(e.clientX-r.left)/r.width*d.w,b=0,i;
    for(i=1;i<d.x.length;i++)if(Math.abs(d.x[i]-x)<Math.abs(d.x[b]-x))b=i;
    at.setAttribute('x1',d.x[b]);at.setAttribute('x2',d.x[b]);at.setAttribute('visibility','visible');
    o.textContent=d.t[b]+d.s.map(function(l){
      var v=l.v[b];return v==null?'':'\\n'+l.n+'  '+v}).join('');
    o.hidden=false;
    var p=r.left-f.getBoundingClientRect().left+d.x[b]/d.w*r.width;
    o.style.left=(p>r.width/2?p-o.offsetWidth-12:p+12)+'px';
  });
  s.addEventListener('pointerleave',hide);
});
";
