/** What the extension adds to JupyterLab and Notebook 7. This file only puts parts together. */

import { ILabShell, ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IConsoleTracker } from '@jupyterlab/console';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Token } from '@lumino/coreutils';
import { diagnosis } from './diagnosis';
import { findings } from './findings';
import { Follower } from './follow';
import { Kernels } from './kernels';
import { addCard } from './launcher';
import { Monitor } from './monitor';
import { addCommands, insertInView, runInView } from './notebook';
import { Panel } from './panel';
import { StatusItem } from './status';

const ID = 'mlsys-studio-lab';

/** The one monitor of a page: however many views, one question at a time. */
export const IMonitor = new Token<Monitor>(`${ID}:IMonitor`);

const monitor: JupyterFrontEndPlugin<Monitor> = {
  id: `${ID}:monitor`,
  description: 'Follows the active kernel over a subshell of its own.',
  autoStart: true,
  provides: IMonitor,
  optional: [INotebookTracker, IConsoleTracker, ILabShell, ISettingRegistry],
  activate: (
    _: JupyterFrontEnd,
    notebooks: INotebookTracker | null,
    consoles: IConsoleTracker | null,
    shell: ILabShell | null,
    settings: ISettingRegistry | null
  ) => {
    const made = new Monitor(new Follower(notebooks, consoles, shell));
    void settings?.load(`${ID}:monitor`).then(loaded => {
      const read = () => (made.hertz = loaded.get('hertz').composite as number);
      loaded.changed.connect(read);
      read();
    });
    return made;
  }
};

const panel: JupyterFrontEndPlugin<void> = {
  id: `${ID}:panel`,
  description: 'The sidebar panel, and the same as a tab.',
  autoStart: true,
  requires: [IMonitor],
  optional: [ILayoutRestorer, ICommandPalette, IStatusBar, ILabShell],
  activate: (
    app: JupyterFrontEnd,
    made: Monitor,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    bar: IStatusBar | null,
    lab: ILabShell | null
  ) => {
    const run = (code: string) => void runInView(made.follower, code);
    const insert = (code: string) => void insertInView(made.follower, code);
    const sections = () => [
      diagnosis(made, run, insert),
      findings(made, run),
      new Kernels(made, app.serviceManager.sessions, path => void app.commands.execute('docmanager:open', { path }))
    ];
    const sidebar = new Panel(made, 'mlsys-panel', sections());
    app.shell.add(sidebar, 'right', { rank: 900, type: 'mlsys-studio' });
    restorer?.add(sidebar, sidebar.id);

    app.commands.addCommand('mlsys:show', {
      label: 'Show the Kernel Monitor',
      caption: 'What this kernel does on its machine',
      execute: () => app.shell.activateById(sidebar.id)
    });
    let tab: Panel | null = null;
    app.commands.addCommand('mlsys:tab', {
      label: 'Open the Kernel Monitor in a Tab',
      isVisible: () => lab !== null,
      execute: () => {
        if (tab === null || tab.isDisposed) {
          tab = new Panel(made, 'mlsys-tab', sections());
          tab.title.label = 'Kernel monitor';
          tab.title.closable = true;
        }
        if (!tab.isAttached) {
          app.shell.add(tab, 'main');
        }
        app.shell.activateById(tab.id);
      }
    });
    for (const command of ['mlsys:show', 'mlsys:tab']) {
      palette?.addItem({ command, category: 'mlsys-studio' });
    }
    bar?.registerStatusItem(`${ID}:status`, {
      item: new StatusItem(made, () => void app.commands.execute('mlsys:show')),
      align: 'right',
      rank: 900
    });
  }
};

const notebook: JupyterFrontEndPlugin<void> = {
  id: `${ID}:notebook`,
  description: 'Buttons on a cell: profile it, diagnose its error.',
  autoStart: true,
  requires: [IMonitor, INotebookTracker],
  optional: [ICommandPalette],
  activate: (app: JupyterFrontEnd, made: Monitor, notebooks: INotebookTracker, palette: ICommandPalette | null) => {
    addCommands(app, notebooks, made.follower);
    for (const command of ['mlsys:profile-cell', 'mlsys:diagnose-cell']) {
      palette?.addItem({ command, category: 'mlsys-studio' });
    }
  }
};

const launcher: JupyterFrontEndPlugin<void> = {
  id: `${ID}:launcher`,
  description: 'A card that opens the quickstart.',
  autoStart: true,
  optional: [ILauncher, ICommandPalette],
  activate: (app: JupyterFrontEnd, cards: ILauncher | null, palette: ICommandPalette | null) => {
    addCard(app, cards);
    palette?.addItem({ command: 'mlsys:quickstart', category: 'mlsys-studio' });
  }
};

export default [monitor, panel, notebook, launcher];
