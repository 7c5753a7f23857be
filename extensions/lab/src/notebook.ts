/** In the notebook: buttons on a cell, and cells that the panel writes and runs. All code it runs stands there to be read. */

import { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import { CodeCell } from '@jupyterlab/cells';
import { ConsolePanel } from '@jupyterlab/console';
import { INotebookTracker, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { Kernel } from '@jupyterlab/services';
import { LabIcon } from '@jupyterlab/ui-components';
import { Follower } from './follow';
import { icon } from './icon';

const PROFILE = '%%mlsys profile';
const LOAD = "if 'mlsys_studio' not in get_ipython().extension_manager.loaded: get_ipython().run_line_magic('load_ext', 'mlsys_studio')";

const questionIcon = new LabIcon({
  name: 'mlsys-studio-lab:diagnose',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3" style="fill: none" stroke="#616161" stroke-width="2" stroke-linecap="round" d="M7 8.5a5 5 0 1 1 7 4.6c-1.4.6-2 1.4-2 3M12 20v.6"/>
</svg>`
});

/** Writes the code into a new cell below the one in use, or into the console's prompt. It is the user's to run. */
export function insertInView(follower: Follower, code: string): void {
  const view = follower.widget;
  if (view instanceof NotebookPanel) {
    NotebookActions.insertBelow(view.content);
    view.content.activeCell?.model.sharedModel.setSource(code);
  } else if (view instanceof ConsolePanel) {
    view.console.promptCell?.model.sharedModel.setSource(code);
  }
}

/** The same, and runs it. */
export async function runInView(follower: Follower, code: string): Promise<void> {
  const view = follower.widget;
  const kernel = follower.context?.session?.kernel ?? null;
  if (kernel === null || !(await loaded(kernel))) {
    return;
  }
  if (view instanceof NotebookPanel) {
    insertInView(follower, code);
    await NotebookActions.run(view.content, view.sessionContext);
  } else if (view instanceof ConsolePanel) {
    await view.console.inject(code);
  }
}

export function addCommands(app: JupyterFrontEnd, notebooks: INotebookTracker, follower: Follower): void {
  const active = () => (notebooks.activeCell instanceof CodeCell ? notebooks.activeCell : null);
  const failed = () => {
    const outputs = active()?.model.outputs;
    return outputs !== undefined && Array.from({ length: outputs.length }, (_, i) => outputs.get(i).type).includes('error');
  };
  app.commands.addCommand('mlsys:profile-cell', {
    label: 'Profile This Cell',
    caption: 'Profile this cell: writes %%mlsys profile above it, and runs it',
    icon,
    isEnabled: () => active() !== null,
    isVisible: () => active() !== null,
    execute: async () => {
      const panel = notebooks.currentWidget;
      const cell = active();
      const kernel = panel?.sessionContext.session?.kernel ?? null;
      if (panel === null || cell === null || kernel === null || !(await loaded(kernel))) {
        return;
      }
      const source = cell.model.sharedModel.getSource();
      const magic = /^\s*%%(\S+)/.exec(source)?.[1];
      if (magic !== undefined && magic !== 'mlsys') {
        Notification.error(`This cell begins with %%${magic}, and a cell has one such line: take it out to profile the cell.`, { autoClose: 8000 });
        return;
      }
      if (magic === undefined) {
        cell.model.sharedModel.setSource(`${PROFILE}\n${source}`);
      }
      await NotebookActions.run(panel.content, panel.sessionContext);
    }
  });
  app.commands.addCommand('mlsys:diagnose-cell', {
    label: 'Diagnose the Error',
    caption: 'Explain the error of this cell: runs %mlsys diagnose in a new cell',
    icon: questionIcon,
    isEnabled: failed,
    isVisible: failed,
    execute: () => runInView(follower, '%mlsys diagnose')
  });
  const again = () => {
    for (const command of ['mlsys:profile-cell', 'mlsys:diagnose-cell']) {
      app.commands.notifyCommandChanged(command);
    }
  };
  notebooks.activeCellChanged.connect(again);
  NotebookActions.executed.connect(again);
}

/** Before a magic of ours can run. It loads no torch, and says so where the package is not there. */
async function loaded(kernel: Kernel.IKernelConnection): Promise<boolean> {
  if (kernel.status === 'busy') {
    return true; // asking would wait for the cell that runs; whoever profiled has loaded it
  }
  const reply = await kernel.requestExecute({ code: LOAD, silent: true, store_history: false, stop_on_error: false }).done;
  if (reply.content.status === 'error') {
    const { ename, evalue } = reply.content as { ename: string; evalue: string };
    const says = ename === 'ModuleNotFoundError' ? 'This kernel lacks mlsys-studio; run %pip install mlsys-studio in the notebook.' : `mlsys-studio could not be loaded: ${evalue}`;
    Notification.error(says, { autoClose: 8000 });
    return false;
  }
  return true;
}
