/** A trace with a peak, in the colour of the theme's icons. */

import { LabIcon } from '@jupyterlab/ui-components';

export const icon = new LabIcon({
  name: 'mlsys-studio-lab:trace',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3" style="fill: none" stroke="#616161" stroke-width="2" stroke-linejoin="round" stroke-linecap="round" d="M2 13h4l3-8 4 14 3-9 2 3h4"/>
</svg>`
});
