/** The colour of each cause, as in every view of a profile (`profilers/views/palette.py`; a test keeps them equal). */

export const COLOURS: Record<string, string> = {
  useful: '#0b7d5e',
  recompute: '#62b39c',
  precision: '#285f9e',
  ceiling: '#8fb3da',
  memory: '#3576b8',
  inefficiency: '#4f6a9e',
  launch: '#d9962e',
  operators: '#6b8794',
  uncounted: '#93a5ad',
  copy: '#b9822f',
  comm: '#c46a1c',
  'wait for rank': '#e0ab5c',
  dependency: '#a5793f',
  'data stall': '#c2402f',
  io: '#e38a74',
  sync: '#b0507f',
  python: '#cd8fb2',
  compile: '#8f62a8',
  gc: '#b59ac9',
  measurement: '#858a93',
  unattributed: '#b4b8be'
};

export function colour(cause: string): string {
  return COLOURS[cause] ?? '#b4b8be';
}
